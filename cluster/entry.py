"""What ``ray submit ray_config.yaml cluster/entry.py -- run job.yaml`` runs on the head: wavmill, on that cluster."""

import os

from wavmill.cluster.cli import main

if __name__ == "__main__":
    os.environ.setdefault("RAY_ADDRESS", "auto")  # the head's own cluster; unset would start a private one on the head
    main()
