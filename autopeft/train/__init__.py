"""From a configuration to a stream of reports: backbones, tasks, training, memory."""
