"""The main job, shown: a three-host cluster that runs, scales, serves and heals a real service."""
