"""How a measured training would scale on machines that were not measured."""
