"""What an image is: descriptors, manifests, the graph they form, the files inside layers."""
