//! What a model has cost, in tokens and money, and whether one more request may be sent. Money is in whatever
//! currency the prices are in.

use serde::{Deserialize, Serialize};

/// Bytes of a text that are at least one token: no tokeniser in use takes more for program text.
const MOST_BYTES_PER_TOKEN: u64 = 8;
/// Bytes that are counted as a token before anybody has counted.
const USUAL_BYTES_PER_TOKEN: u64 = 3;

/// What was spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
    pub(super) requests: u64,
    /// Tokens that were sent.
    pub(super) input: u64,
    /// Tokens that were answered.
    pub(super) output: u64,
    /// What that cost by the prices that were set then.
    pub(super) money: f64,
}

/// Prices, and what may be spent in all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prices {
    /// Money for a million tokens that are sent.
    pub(super) input: f64,
    /// Money for a million tokens that are answered.
    pub(super) output: f64,
    /// Tokens in all.
    pub(super) token_limit: u64,
    /// Money in all.
    pub(super) money_limit: Option<f64>,
}

impl Prices {
    fn money(&self, input: u64, output: u64) -> f64 {
        (input as f64 * self.input + output as f64 * self.output) / 1e6
    }
}

impl Ledger {
    /// Whether a request of so many bytes, answered by at most so many tokens, keeps within the limits; what it
    /// would pass otherwise.
    pub(super) fn may_send(&self, prices: &Prices, bytes: usize, answer: u64) -> Result<(), String> {
        let input = (bytes as u64).div_ceil(USUAL_BYTES_PER_TOKEN);
        let tokens = self.input + self.output + input + answer;
        if tokens > prices.token_limit {
            return Err(format!(
                "one more request of about {input} tokens, and up to {answer} in answer, would pass the limit of {} \
                 tokens (repair.token_limit); {} are spent",
                prices.token_limit,
                self.input + self.output
            ));
        }
        let money = self.money + prices.money(input, answer);
        match prices.money_limit {
            Some(limit) if money > limit => Err(format!(
                "one more request may cost {:.4}, which would pass the limit of {limit} (repair.money_limit); {:.4} \
                 are spent",
                prices.money(input, answer),
                self.money
            )),
            _ => Ok(()),
        }
    }

    /// Notes a request that was sent. What the server says of tokens is believed as far as the bytes allow: none
    /// of 8 kB is not.
    pub(super) fn note(
        &mut self,
        prices: &Prices,
        sent: (usize, Option<u64>),
        answered: (usize, Option<u64>),
    ) {
        let tokens = |(bytes, said): (usize, Option<u64>)| {
            let least = (bytes as u64).div_ceil(MOST_BYTES_PER_TOKEN);
            said.unwrap_or((bytes as u64).div_ceil(USUAL_BYTES_PER_TOKEN)).clamp(least, u64::from(u32::MAX))
        };
        let (input, output) = (tokens(sent), tokens(answered));
        self.requests += 1;
        self.input += input;
        self.output += output;
        self.money += prices.money(input, output);
    }

    /// In words; nothing if nothing was asked.
    pub(super) fn words(&self) -> Option<String> {
        let of = if self.requests == 1 { "request" } else { "requests" };
        (self.requests > 0).then(|| {
            format!(
                "{} {of}, {} tokens sent, {} answered, cost {:.4}",
                self.requests, self.input, self.output, self.money
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_pass_a_limit_is_not_sent_and_no_server_counts_in_its_own_favour() {
        let prices = Prices { input: 3.0, output: 15.0, token_limit: 10_000, money_limit: Some(0.1) };
        let mut ledger = Ledger::default();
        assert_eq!(ledger.may_send(&prices, 9_000, 2_000), Ok(()));
        ledger.note(&prices, (9_000, Some(3_000)), (800, Some(200)));
        assert_eq!((ledger.requests, ledger.input, ledger.output), (1, 3_000, 200));
        assert!((ledger.money - 0.012).abs() < 1e-12);
        // One that says nothing, and one that says that nothing was spent.
        ledger.note(&prices, (3_000, None), (300, None));
        ledger.note(&prices, (8_000, Some(0)), (80, Some(0)));
        assert_eq!((ledger.input, ledger.output), (5_000, 310));
        assert!(ledger.may_send(&prices, 9_000, 2_000).unwrap_err().contains("10000 tokens"));
        let costly = Prices { money_limit: Some(0.02), token_limit: u64::from(u32::MAX), ..prices };
        assert!(ledger.may_send(&costly, 3_000, 1_000).unwrap_err().contains("limit of 0.02"));
        assert!(ledger.words().unwrap().starts_with("3 requests, 5000 tokens sent, 310 answered"));
    }
}
