//! Programs that give a world to pytest, for `python3 -c`; without a single quote.

/// pytest, running each test twice before the run of its own: again within the session, then with nothing left.
pub(super) const REPEATS: &str = "import sys, pytest; from _pytest.runner import runtestprotocol as run; \
                       sys.exit(pytest.main(sys.argv[1:], plugins=[type(\"Repeats\", (), \
                       {\"pytest_runtest_protocol\": lambda self, item: \
                       [run(item, nextitem=node) for node in (item.parent, None)] and None})()]))";

/// pytest, with the cyclic collector at work all the time.
pub(super) const COLLECTING: &str =
    "import gc, sys, pytest; gc.set_threshold(10, 5, 5); sys.exit(pytest.main(sys.argv[1:]))";

/// pytest, with generators of random numbers seeded before each test as the world of that seed does.
pub(super) fn seeding(seed: u32) -> String {
    format!(
        "import sys, random, hashlib, pytest; sys.exit(pytest.main(sys.argv[1:], plugins=[type(\"Seeds\", (), \
         {{\"pytest_runtest_protocol\": pytest.hookimpl(tryfirst=True)(lambda self, item: \
         [seed(int(hashlib.sha256((\"{seed}:\" + item.nodeid).encode()).hexdigest()[:8], 16)) for seed in \
         [random.seed] + [sys.modules[name].seed for name in [\"numpy.random\"] if name in sys.modules]] \
         and None)}})()]))"
    )
}
