"""The page of a study that runs, fed by its record, with what may be asked of its trials."""
