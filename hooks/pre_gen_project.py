"""Refuse to overwrite existing files, even with --overwrite-if-exists."""

import os
import sys

if os.listdir():
    sys.exit(
        f"{os.getcwd()} is not empty: nothing was written. To update a site, see 'Updating' in its "
        "README. For a new site, choose another project_slug or folder."
    )
