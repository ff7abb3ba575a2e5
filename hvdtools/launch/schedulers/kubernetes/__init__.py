"""Jobs on Kubernetes: an MPIJob for Kubeflow's MPI operator."""
