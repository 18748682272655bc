"""The environment variables by which OpenMP chooses the threads of PyTorch, by name. Imports nothing, so that any process may know them."""

THREADS = "OMP_NUM_THREADS"
SPIN = "GOMP_SPINCOUNT"
# Rounds that a thread waits for the others before it sleeps. libgomp's own 300,000 are milliseconds in which the thread that is waited for
# may need the very processor; with a few hundred, a quiet machine takes twice as long to wake them. Measured by benchmarks/neighbours.py.
SPIN_COUNT = "6000"
CHOSEN_BY_USER = (SPIN, "OMP_WAIT_POLICY")
