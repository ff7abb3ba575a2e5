"""Jobs on SageMaker: a CreateTrainingJob request."""
