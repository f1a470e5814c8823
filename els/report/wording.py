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
<p>The machine <code>{machine}</code> is that average. It was never trained. One number was fitted
to the network at each of {steps} times t, the size of the patch; then network and machine drew
from the same noise, and this page compares what came out, pixel by pixel, on seeds that were not
used for fitting.</p>
<p class="quiet">t runs from 1, pure noise, to 0, the image. x0_hat is what a denoiser takes the
clean image to be. pearson_r is the correlation over pixels: 1 is the same picture up to
brightness and contrast, 0 is unrelated.</p></details>
"""

TEXT = {
    "metrics": (
        '<p class="caption">pearson_r: correlation over pixels and channels (the paper\'s code '
        "plots it as r^2). r2: its square. R2: 1 - SSE / SST of the network's image, which also "
        "demands the right brightness and contrast.</p>"
    ),
    "scales": (
        "The patch size at which the machine answers most like the network, at each time, with "
        "the middle 80 % of the calibration seeds. Large at high noise, where the network "
        "arranges the whole; small at the end, where it draws details. Beside it, how far the "
        "network was measured to look: the smallest squares that hold half and 90 % of the "
        "squared gradient of its x0_hat at the centre pixel."
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
        "Network and machine from the same noise, side by side at every time. The mosaic shows, "
        "for each pixel, the training pixel whose patch has the largest weight in the machine's "
        "average; the maps show over how many patches the average runs, and how much of its "
        "weight one single training image holds."
    ),
    "explorer": (
        "Where did this pixel come from? Point at one, touch it, or use the arrow keys. Lines "
        "part neighbours whose winning patches are from different training images; orange pixels "
        "share the image of the one you point at; the blue square is the patch that was compared. "
        "The network's mosaic asks the same machine at the last step of the network's own path."
    ),
    "novelty": (
        "Is this copied? Two yardsticks: held-out images, which cannot be copies, and training "
        "images, which are (both with the noise of the last step). First: each sample is compared "
        "with every training image at every shift, which wraps round; a plain distance misses "
        "shifted copies. Second: the share of its pixels that agree with that image, beyond what "
        "images agree by chance: 1 for a copy, 0 for no more in common than with any image. Third: "
        "how many training images the winners are from. Fourth: the largest share of the pixels "
        "that come from one training image at one displacement. Noise keeps even a copy from being "
        "of one piece."
    ),
    "consistency": (
        "First: how well neighbouring winners agree about the pixels that their patches share; 1 "
        "is perfectly, 0 no better than chance. Low values at high noise are averages over many "
        "patches, not one. Second: how many patches the average at a pixel runs over (median over "
        "pixels). Medians and quartiles of the seeds."
    ),
    "equivariance": (
        "How much the network's answer for the same content changes with the place it is put at: "
        "0 not at all, 1 as much as unrelated answers differ. By time and by the distance to the "
        "border of the nearer of the two places."
    ),
}
