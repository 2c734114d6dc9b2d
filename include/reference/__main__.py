"""The command ``python -m include.reference``: write or check the pages of docs/reference."""

from include.reference.generate import main

raise SystemExit(main())
