import time

import pytest

SECONDS = 1.0


@pytest.mark.parametrize("place", range(10))
def test_waiting(place):
    time.sleep(SECONDS)
