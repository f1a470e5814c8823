"""2,500 photographs of FashionMNIST, which come with this package; SOURCE.md says from where."""

from els.images.garments.stored import CLASSES, FILE, load_garments

__all__ = ["CLASSES", "FILE", "load_garments"]
