"""What a business person would print: the models, and how a shop's profile makes them."""
