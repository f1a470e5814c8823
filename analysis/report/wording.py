"""What the page says: the introduction, and what one sees in each section."""

INTRODUCTION = """
<details open><summary>What this page shows</summary>
<p>A diffusion model draws images by removing noise in steps. If its network were trained to
perfection it could only repeat its training images: the best answer at every step is known in
closed form (the machine called <code>ideal</code>) and it memorises. Convolutional networks draw
new images instead. The theory tested here says why: a convolution sees only a small patch around
each pixel (it is <em>local</em>), and it does not know where in the image that patch is (it is
<em>equivariant</em>). With those two limits the best answer is again known in closed form: every
pixel becomes an average over all training <em>patches</em> that look like its surroundings. The
result is a patch mosaic of the training set.</p>
<p>The machine <code>{machine}</code> is what this page tests: {fitted} Then network and machine
drew from the same noise, and this page compares what came out, pixel by pixel, on <em>seeds</em>
(noises) that were not used for fitting. The machines on this page:</p>
<dl>{machines}</dl>
<p class="quiet">t runs from 1, pure noise, to 0, the image, in steps. x0_hat is what a denoiser
takes the clean image to be. pearson_r is the correlation over pixels: 1 is the same picture up to
brightness and contrast, 0 is unrelated.</p></details>
"""

FITTED = {
    "nothing": "it was never trained, and nothing in it was fitted to the network.",
    "scale": "it was never trained. One number, its {scale}, was fitted to the network at each t.",
    "weights": "it was never trained. At each t, weights that mix other machines were fitted to "
    "the network.",
}

_SOFT = "with a soft window in place of a square; its width was fitted."
MACHINES = {
    "boundary": "Each pixel becomes the average of training patches that look like its "
    "surroundings, from anywhere in the images; near a border, from the same place alone. Made for "
    "networks that pad with zeros.",
    "equivariant": "Each pixel becomes the average of training patches that look like its "
    "surroundings, from anywhere in the images. Made for networks that wrap round (circular "
    "padding).",
    "local": "The same, with patches from the pixel's own place alone: locality without "
    "equivariance.",
    "ideal": "The average of whole training images: it memorises.",
    "boundary_soft": f"Like <code>boundary</code>, {_SOFT}",
    "equivariant_soft": f"Like <code>equivariant</code>, {_SOFT}",
    "patch_composite": "Whole patches at their own places, averaged where they overlap.",
    "pca_local": "At its own place, each pixel compares the cells that the images' covariance "
    "links it to.",
    "global_equivariant": "The average of whole training images at every shift.",
    "smoothed": "<code>ideal</code>, averaged over disturbed inputs.",
    "tempered": "<code>ideal</code> with its weights made more even.",
    "nearest": "The nearest training image.",
    "wiener": "The best linear filter for the images' mean and covariance.",
    "mixture": "A mixture of patch machines and the linear filter, weighed anew at each t.",
}

TEXT = {
    "metrics": (
        "<p class='caption'>pearson_r: correlation over pixels and channels (the paper's code "
        "plots it as r^2). r2: its square, which loses the sign. R2: 1 - SSE / SST of the "
        "network's image, which also demands the right brightness and contrast. Beats ideal: the "
        "share of seeds on which pearson_r is above that of the machine that memorises.</p>"
    ),
    "scales": (
        "What was fitted at each time: the value at which the machine answers most like the "
        "network, as the median of the calibration seeds, with the middle 80 % of them. Beside "
        "patch sizes, how far the network was measured to look: the smallest squares that hold "
        "half and 90 % of the squared gradient of its x0_hat at the centre pixel."
    ),
    "criterion": (
        "What the scale was chosen from: how alike the machine's and the network's estimates of "
        "the noise are, for every time and every value tried, averaged over the calibration "
        "seeds. Dots are the values chosen."
    ),
    "by_t": (
        "Agreement of the estimated clean images along the denoising path, network and machine "
        "each on its own. Median and quartiles of the seeds; noise is on the left."
    ),
    "walk": (
        "Everything from one noise, side by side at every time. A mosaic shows, for each pixel, "
        "the training pixel whose patch has the largest weight in the machine's average; the maps "
        "show over how many patches the average runs, and how much of its weight one single "
        "training image holds."
    ),
    "explorer": (
        "Where did this pixel come from? Point at one, touch it, or use the arrow keys. Lines "
        "part neighbours whose winning patches are from different training images; orange pixels "
        "share the image of the one you point at; the blue square is the patch that was compared. "
        "Where many patches are equally good, as in a plain background, no winner means much: its "
        "weight tells. The network's mosaic asks the same machine at the last step of the "
        "network's own path."
    ),
    "novelty": (
        "Is this copied? Real images are the yardstick: held-out ones, which cannot be copies, "
        "and training images, which are. Distance: root mean squared difference to the nearest "
        "training image at any shift, which wraps round (a plain distance misses shifted copies). "
        "Memorised pixels: those that agree with that image, beyond what images agree by chance; "
        "1 for a copy, 0 for no more in common than with any image. Images drawn on, and the "
        "largest piece: how many training images the winners are from, and how much comes from "
        "one image at one displacement; the yardsticks have the noise of the last step, which "
        "keeps even a copy from being of one piece."
    ),
    "consistency": (
        "Local consistency: how well neighbouring winners agree about the pixels that their "
        "patches share; 1 is perfectly, 0 no better than chance. Low values at high noise are "
        "averages over many patches, not one. Patches that count: how many the average at a pixel "
        "runs over (median over pixels). Medians and quartiles of the seeds."
    ),
    "equivariance": (
        "How much the network's answer for the same content changes with the place it is put at: "
        "0 not at all, 1 as much as unrelated answers differ. By time and by the distance to the "
        "border of the nearer of the two places."
    ),
}
