"""How well the theory predicts a trained network: the library from end to end.

python train.py fit --config configs/digits_resnet.yaml
python -m examples.agreement runs/digits_resnet
"""

import sys

import els

network = els.load_denoiser(sys.argv[1])  # a run's folder, or any checkpoint that can be read
images = network.data.load()  # those that it was trained on
machine = els.make_machine("boundary", images)  # `equivariant` for circular padding
scales = els.fit_scales(network, machine, els.Starts.of(network), seeds=range(4))
predicted = els.sample(machine.fitted(scales), seeds=range(4, 16))
drawn = els.sample(network, seeds=range(4, 16))  # from the same noise
for metric, values in els.agreement(predicted, drawn).items():
    print(metric, els.summarise(values))  # median over seeds, with its 95 % interval
print(scales)
