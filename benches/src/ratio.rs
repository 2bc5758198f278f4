//! Two sides measured by turns.

use std::time::Duration;

use crate::Result;
use crate::clock::Clock;

/// How two sides alternate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    /// Whose time counts.
    pub(crate) clock: Clock,
    /// How many ratios to take.
    pub(crate) rounds: usize,
    /// How often each side has its turn in a round.
    pub(crate) each: usize,
    /// How many operations a turn has.
    pub(crate) operations: usize,
}

/// One of the two sides.
pub(crate) trait Side {
    /// Makes ready for this many operations.
    fn prepare(&mut self, _operations: usize) -> Result {
        Ok(())
    }

    /// Does this many operations. Only this is timed.
    fn run(&mut self, operations: usize) -> Result;

    /// Ends what the operations left to do in the background, so that it does not weigh on the other side.
    fn settle(&mut self) -> Result {
        Ok(())
    }
}

impl<F: FnMut(usize) -> Result> Side for F {
    fn run(&mut self, operations: usize) -> Result {
        self(operations)
    }
}

/// What came out, a value for each round.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// The seconds that an operation of the first side took.
    pub(crate) ours: Vec<f64>,
    /// The same of the second side.
    pub(crate) theirs: Vec<f64>,
}

impl Turns {
    /// Measures two sides, after a round that does not count. The side that begins changes with every turn, so that
    /// neither gains from a drift of the machine or from what the other left in its caches.
    pub(crate) fn measure(&self, ours: &mut dyn Side, theirs: &mut dyn Side) -> Result<Rounds> {
        let mut rounds = Rounds::default();
        for round in 0..=self.rounds {
            let (mut a, mut b) = (Duration::ZERO, Duration::ZERO);
            for turn in 0..self.each {
                if turn % 2 == 0 {
                    a += self.turn(ours)?;
                    b += self.turn(theirs)?;
                } else {
                    b += self.turn(theirs)?;
                    a += self.turn(ours)?;
                }
            }
            if round > 0 {
                rounds.ours.push(self.per_operation(a));
                rounds.theirs.push(self.per_operation(b));
            }
        }
        Ok(rounds)
    }

    fn turn(&self, side: &mut dyn Side) -> Result<Duration> {
        side.prepare(self.operations)?;
        let begin = self.clock.now();
        side.run(self.operations)?;
        let spent = self.clock.now().saturating_sub(begin);
        side.settle()?;
        Ok(spent)
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of operations are far below 2^52")]
    fn per_operation(&self, total: Duration) -> f64 {
        total.as_secs_f64() / (self.each * self.operations) as f64
    }
}
