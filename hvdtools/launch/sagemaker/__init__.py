"""The old place of `hvdtools.launch.schedulers.sagemaker`: saved training jobs name it."""
