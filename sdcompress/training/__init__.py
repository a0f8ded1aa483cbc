"""Recipe -> checkpoint: the loop, its data order, optimiser, averages and exact resume. Loads nothing by itself."""
