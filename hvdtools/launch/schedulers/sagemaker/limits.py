"""What CreateTrainingJob takes; a test holds each of these equal to AWS's own service model.

Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from __future__ import annotations

NAME_LENGTH = 63
NAME = r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
ROLE_LENGTHS = (20, 2048)
ROLE = r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"
IMAGE_LENGTH = 255
URI_LENGTH = 1024
CHANNELS = 20
CHANNEL_LENGTH = 64
CHANNEL = r"[A-Za-z0-9\.\-_]+"
WORDS = 100
WORD_LENGTH = 256
VARIABLES = 100
VARIABLE_LENGTH = 512
VALUE_LENGTH = 512
HYPERPARAMETERS = 100
HYPERPARAMETER_LENGTH = 256
HYPERPARAMETER_VALUE_LENGTH = 2500
SUBNETS = 16
SECURITY_GROUPS = 5
VPC_ID_LENGTH = 32
VPC_ID = r"[-0-9a-zA-Z]+"
TAGS = 50
TAG_KEY_LENGTH = 128
TAG_VALUE_LENGTH = 256
RETRIES = (1, 30)
