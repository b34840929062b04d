"""What `make` runs to build the book; nothing here is part of the companion package."""
