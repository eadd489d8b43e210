"""What the autoscaler is played as, against what its documents say."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from law import Autoscaler, Rules, Scaling  # noqa: E402


def scaler(window=30, cooldown=60, up=(("Pods", 8, 15),), down=(("Percent", 100, 15),), most=8, least=0):
    return Autoscaler(Scaling({"bulk": 2.0, "interactive": 2.0}, least, most, 15, cooldown, Rules(0, up), Rules(window, down)))


class Law(unittest.TestCase):
    def test_one_message_activates_and_metrics_decide_from_one_on(self):
        played = scaler()
        self.assertEqual(played.decide(0, {"bulk": 4}, 0), 1)
        self.assertEqual(played.decide(15, {"bulk": 10}, 1), 5)

    def test_the_queue_that_wants_most_decides_not_their_sum(self):
        self.assertEqual(scaler().decide(0, {"bulk": 6, "interactive": 8}, 1), 4)

    def test_within_a_tenth_nothing_changes(self):
        self.assertEqual(scaler().decide(0, {"bulk": 13}, 6), 6)
        self.assertEqual(scaler().decide(0, {"bulk": 14}, 6), 7)

    def test_there_are_never_more_than_the_most(self):
        self.assertEqual(scaler().decide(0, {"bulk": 1000}, 1), 8)

    def test_the_highest_wish_of_the_window_holds_workers(self):
        played = scaler(window=30)
        self.assertEqual(played.decide(0, {"bulk": 16}, 8), 8)
        self.assertEqual(played.decide(15, {"bulk": 2}, 8), 8)
        self.assertEqual(played.decide(30, {"bulk": 2}, 8), 8)
        self.assertEqual(played.decide(45, {"bulk": 2}, 8), 1)

    def test_the_last_worker_goes_when_it_has_cooled_down(self):
        played = scaler(window=0, cooldown=60)
        self.assertEqual(played.decide(0, {"bulk": 2}, 1), 1)
        self.assertEqual(played.decide(45, {"bulk": 0}, 1), 1)
        self.assertEqual(played.decide(60, {"bulk": 0}, 1), 0)

    def test_policies_bound_a_step(self):
        played = scaler(window=0, up=(("Pods", 2, 60), ("Percent", 100, 60)), down=(("Percent", 50, 60),))
        self.assertEqual(played.decide(0, {"bulk": 16}, 1), 3)
        # Two of the last minute are on account.
        self.assertEqual(played.decide(15, {"bulk": 16}, 3), 3)
        self.assertEqual(played.decide(61, {"bulk": 16}, 3), 6)
        self.assertEqual(played.decide(62, {"bulk": 2}, 6), 3)

    def test_with_a_least_number_none_is_never_reached(self):
        played = scaler(window=0, least=1)
        self.assertEqual(played.decide(0, {"bulk": 0}, 1), 1)
        self.assertEqual(played.decide(1000, {"bulk": 0}, 1), 1)


if __name__ == "__main__":
    unittest.main()
