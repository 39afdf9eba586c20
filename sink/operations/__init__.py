"""What people ask of a running sink, whatever the place they ask from."""
