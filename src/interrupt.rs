//! Ctrl-C and its kin: the first one ends the run in good order, the second one at once.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit_code::ExitCode;
use crate::out::complain;
use crate::{Failure, runtime};

/// Waits for SIGINT, SIGTERM and SIGHUP.
pub struct Interrupts {
    signals: [Signal; 3],
}

impl Interrupts {
    /// Takes the signals over from the default, which would end this process and leave agents.
    pub fn new() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind).map_err(|error| Failure::trouble(format!("no signal handler: {error}")))
        };
        let signals = [
            take(SignalKind::interrupt())?,
            take(SignalKind::terminate())?,
            take(SignalKind::hangup())?,
        ];
        Ok(Self { signals })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Ends the program at the first signal, but never in the middle of what has to be whole.
pub struct Standing {
    /// What there is to say of where things stand. Held by whoever must not be interrupted.
    sentence: Arc<Mutex<&'static str>>,
}

impl Standing {
    /// Takes the signals over. At one, the sentence is told, and the program ends with
    /// [`ExitCode::Trouble`].
    pub fn new(sentence: &'static str) -> Result<Self, Failure> {
        let sentence = Arc::new(Mutex::new(sentence));
        let told = sentence.clone();
        let runtime = runtime()?;
        let mut signals = {
            let _entered = runtime.enter();
            Interrupts::new()?
        };
        // The thread ends with the process, as it waits for nothing else.
        std::thread::spawn(move || {
            runtime.block_on(signals.next());
            let sentence = told.lock().unwrap_or_else(PoisonError::into_inner);
            complain!("interrupted: {sentence}");
            std::process::exit(ExitCode::Trouble as i32);
        });
        Ok(Self { sentence })
    }

    /// Does what has to be whole; from its success on, that sentence is true.
    pub fn whole<T>(
        &self,
        sentence: &'static str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut standing = self.sentence.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work()?;
        *standing = sentence;
        Ok(done)
    }
}
