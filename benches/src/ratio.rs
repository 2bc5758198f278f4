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
        let [rounds] = self.measure_by([self.clock], ours, theirs)?;
        Ok(rounds)
    }

    /// The same by several clocks at once.
    pub(crate) fn measure_by<const N: usize>(
        &self,
        clocks: [Clock; N],
        ours: &mut dyn Side,
        theirs: &mut dyn Side,
    ) -> Result<[Rounds; N]> {
        let mut all = [(); N].map(|()| Rounds::default());
        for round in 0..=self.rounds {
            let (mut a, mut b) = ([Duration::ZERO; N], [Duration::ZERO; N]);
            for turn in 0..self.each {
                if turn % 2 == 0 {
                    self.turn(clocks, ours, &mut a)?;
                    self.turn(clocks, theirs, &mut b)?;
                } else {
                    self.turn(clocks, theirs, &mut b)?;
                    self.turn(clocks, ours, &mut a)?;
                }
            }
            if round > 0 {
                for ((rounds, a), b) in all.iter_mut().zip(a).zip(b) {
                    rounds.ours.push(self.per_operation(a));
                    rounds.theirs.push(self.per_operation(b));
                }
            }
        }
        Ok(all)
    }

    fn turn<const N: usize>(&self, clocks: [Clock; N], side: &mut dyn Side, totals: &mut [Duration; N]) -> Result {
        side.prepare(self.operations)?;
        let begin = clocks.map(Clock::now);
        side.run(self.operations)?;
        let end = clocks.map(Clock::now);
        for (total, (begin, end)) in totals.iter_mut().zip(begin.into_iter().zip(end)) {
            *total += end.saturating_sub(begin);
        }
        side.settle()
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of operations are far below 2^52")]
    fn per_operation(&self, total: Duration) -> f64 {
        total.as_secs_f64() / (self.each * self.operations) as f64
    }
}
