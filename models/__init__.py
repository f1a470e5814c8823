"""Networks, their training, and what is needed to bring a trained one back."""
