"""Value functions: heads, ensembles of critics and their regularisers."""
