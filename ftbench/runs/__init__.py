"""Many runs: which ones (``stages``), where they are kept (``store``), doing them (``grid``)."""
