//! The sandboxes of one job. Attempts of the nested levels share an outer wall, which lives as long as
//! the job; where a level cannot be had, the next stricter one takes its place and says why.

use super::nest::{Asked, Home, Idle, Key, Nest, NotStarted, Preparation, RunningNested, Use};
use super::{DockerSandbox, LocalSandbox, RunningSandbox, Sandbox, SandboxRequest};
use crate::sandbox::ToCome;
use crate::user::USER;
use flakefarm_shared::{AttemptId, InfraError, InfraStage, Limits, SandboxLevel};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use tokio_util::task::AbortOnDropHandle;

/// A nest on its way; given up, what was created is removed.
type Opening = AbortOnDropHandle<Result<Nest, NotStarted>>;

/// Starts the attempts of one job. Dropped, it hands what it keeps to the clean-up of its level.
#[derive(Debug)]
pub struct JobSandbox {
    sandbox: Sandbox,
    idle: Idle,
    /// A nest that is being opened for attempts to come.
    ahead: Mutex<Option<(Key, Opening)>>,
    not_forked: Mutex<Option<String>>,
    not_nested: Mutex<Option<String>>,
}

/// A sandbox that was started.
#[derive(Debug)]
pub struct Started {
    /// It.
    pub running: RunningSandbox,
    /// Its level.
    pub level: SandboxLevel,
    /// Why its level is a stricter one than was asked for.
    pub instead: Option<String>,
}

impl JobSandbox {
    pub(super) fn new(sandbox: Sandbox) -> Self {
        Self {
            sandbox,
            idle: Arc::default(),
            ahead: Mutex::default(),
            not_forked: Mutex::default(),
            not_nested: Mutex::default(),
        }
    }

    /// The level at which there is nothing to share: what lists tests, say, is started at.
    pub fn own_level(&self) -> SandboxLevel {
        self.sandbox.own_level()
    }

    /// See [`Sandbox::keep_ready`].
    pub fn keep_ready(&self, image: &str, limits: &Limits, count: NonZeroU16, to_come: ToCome) {
        self.sandbox.keep_ready(image, limits, count, to_come);
    }

    /// An attempt like `request` is to come, after others that share nothing with it: what it will share with
    /// those like it is opened meanwhile. Unused, it goes with the job.
    pub fn open_ahead(
        &self,
        request: &SandboxRequest,
        level: SandboxLevel,
        preparation: Option<&Preparation>,
    ) {
        let Sandbox::Docker(docker) = &self.sandbox else { return };
        let is_nested = matches!(level, SandboxLevel::Nested | SandboxLevel::Forked);
        if !is_nested || request.user != USER {
            return;
        }
        let used_for = used_for(preparation.filter(|_| level == SandboxLevel::Forked));
        let key = Key::of(request, used_for);
        let (docker, request) = (docker.clone(), request.clone());
        let opening = tokio::spawn(async move { docker.open_nest(&request, used_for).await });
        *self.ahead.lock().expect("no holder panics") = Some((key, AbortOnDropHandle::new(opening)));
    }

    /// Creates and starts a fresh sandbox. `preparation` says how to prepare interpreters for the
    /// forked level; without it, attempts are nested. Cancel safe: what was created is removed.
    pub async fn start(
        &self,
        request: SandboxRequest,
        level: SandboxLevel,
        preparation: Option<&Preparation>,
    ) -> Result<Started, InfraError> {
        if !self.sandbox.offers(level) {
            return Err(failed(&format!("this worker does not offer the sandbox level {level}")));
        }
        match (&self.sandbox, level) {
            // Every attempt in a nest has the same user.
            (Sandbox::Docker(_), SandboxLevel::Nested | SandboxLevel::Forked) if request.user != USER => {
                let instead = Some(format!("nested attempts run as user {USER}, not {}", request.user));
                let running = self.sandbox.start(request).await?;
                Ok(Started { running, level: SandboxLevel::Container, instead })
            }
            (Sandbox::Docker(docker), SandboxLevel::Nested | SandboxLevel::Forked) => {
                let preparation = preparation.filter(|_| level == SandboxLevel::Forked);
                // Large futures, and one of them per attempt that runs.
                Box::pin(self.start_nested(docker, request, preparation)).await
            }
            (Sandbox::Local(local), SandboxLevel::Host) => {
                let running = Box::pin(self.start_on_host(local, &request)).await?;
                Ok(Started { running, level, instead: None })
            }
            (Sandbox::Docker(_) | Sandbox::Local(_) | Sandbox::Scripted(_), _) => {
                Ok(Started { running: Box::pin(self.sandbox.start(request)).await?, level, instead: None })
            }
        }
    }

    /// Says which attempt [`JobSandbox::start`] will be asked for after `running` has ended. Where both can
    /// share an outer wall it then starts without delay, each in a cell of its own as ever. An attempt that
    /// is announced and never started ends with the job.
    pub async fn announce(
        &self,
        running: &mut RunningSandbox,
        request: &SandboxRequest,
        level: SandboxLevel,
        preparation: Option<&Preparation>,
    ) {
        let preparation = preparation.filter(|_| level == SandboxLevel::Forked);
        let is_nested = match level {
            SandboxLevel::Nested | SandboxLevel::Forked => request.user == USER,
            SandboxLevel::Host => true,
            SandboxLevel::Container | SandboxLevel::Process => false,
        };
        if let RunningSandbox::Nested(nested) = running
            && is_nested
        {
            nested.announce(&Key::of(request, used_for(preparation)), request, preparation).await;
        }
    }

    async fn start_nested(
        &self,
        docker: &DockerSandbox,
        request: SandboxRequest,
        preparation: Option<&Preparation>,
    ) -> Result<Started, InfraError> {
        let refusal = |why: &Mutex<Option<String>>| why.lock().expect("no holder panics").clone();
        if let Some(preparation) = preparation
            && refusal(&self.not_nested).is_none()
            && refusal(&self.not_forked).is_none()
        {
            let why = match self.in_nest(docker, &request, Some(preparation)).await? {
                Ok(running) => {
                    return Ok(Started { running, level: SandboxLevel::Forked, instead: None });
                }
                Err(why) => why,
            };
            tracing::warn!(job.id = %request.attempt.job, "attempts are not forked: {why}");
            *self.not_forked.lock().expect("no holder panics") = Some(why);
        }
        let not_forked = preparation.and_then(|_| refusal(&self.not_forked));
        if refusal(&self.not_nested).is_none() {
            match self.in_nest(docker, &request, None).await? {
                Ok(running) => {
                    return Ok(Started { running, level: SandboxLevel::Nested, instead: not_forked });
                }
                Err(why) => {
                    tracing::warn!(job.id = %request.attempt.job, "attempts are not nested: {why}");
                    *self.not_nested.lock().expect("no holder panics") = Some(why);
                }
            }
        }
        let instead = refusal(&self.not_nested);
        let running = self.sandbox.start(request).await?;
        Ok(Started { running, level: SandboxLevel::Container, instead })
    }

    /// Starts it in a nest. The inner error is why that cannot be done here.
    async fn in_nest(
        &self,
        docker: &DockerSandbox,
        request: &SandboxRequest,
        preparation: Option<&Preparation>,
    ) -> Result<Result<RunningSandbox, String>, InfraError> {
        let used_for = used_for(preparation);
        let key = Key::of(request, used_for);
        let nest = match self.take_idle(&key, request.attempt) {
            Some(nest) => nest,
            None => match self.opened(docker, &key, request, used_for).await {
                Ok(nest) => nest,
                Err(NotStarted::Unsupported(why)) => return Ok(Err(why)),
                Err(NotStarted::Infrastructure(error)) => return Err(error),
            },
        };
        match RunningNested::start(nest, self.home(key), request, preparation).await? {
            Asked::Runs(running) => Ok(Ok(RunningSandbox::Nested(running))),
            Asked::NotForked(nest, why) => {
                nest.close().await;
                Ok(Err(why))
            }
        }
    }

    /// The nest that was opened ahead for this, else a new one.
    async fn opened(
        &self,
        docker: &DockerSandbox,
        key: &Key,
        request: &SandboxRequest,
        used_for: Use,
    ) -> Result<Nest, NotStarted> {
        let ahead = self.ahead.lock().expect("no holder panics").take_if(|(of, _)| of == key);
        if let Some((_, opening)) = ahead
            && let Ok(opened) = opening.await
        {
            return opened;
        }
        docker.open_nest(request, used_for).await
    }

    async fn start_on_host(
        &self,
        local: &LocalSandbox,
        request: &SandboxRequest,
    ) -> Result<RunningSandbox, InfraError> {
        let key = Key::of(request, Use::Starting);
        let nest = match self.take_idle(&key, request.attempt) {
            Some(nest) => nest,
            None => local.open_nest(request).await.map_err(|error| match error {
                NotStarted::Unsupported(why) => failed(&why),
                NotStarted::Infrastructure(error) => error,
            })?,
        };
        match RunningNested::start(nest, self.home(key), request, None).await? {
            Asked::Runs(running) => Ok(RunningSandbox::Nested(running)),
            Asked::NotForked(nest, why) => {
                nest.close().await;
                Err(failed(&why))
            }
        }
    }

    fn home(&self, key: Key) -> Option<Home> {
        Some(Home { idle: self.idle.clone(), key })
    }

    fn take_idle(&self, key: &Key, attempt: AttemptId) -> Option<Nest> {
        let mut idle = self.idle.lock().expect("no holder panics");
        let with = |announced| idle.iter().position(|(of, nest)| of == key && nest.announced() == announced);
        let place = with(Some(attempt)).or_else(|| with(None))?;
        Some(idle.swap_remove(place).1)
    }

    /// Removes what the job's attempts shared. Call it when the last of them has ended.
    pub async fn close(self) {
        let idle = std::mem::take(&mut *self.idle.lock().expect("no holder panics"));
        for (_, nest) in idle {
            nest.close().await;
        }
    }
}

fn used_for(preparation: Option<&Preparation>) -> Use {
    if preparation.is_some() { Use::Forking } else { Use::Starting }
}

fn failed(message: &str) -> InfraError {
    InfraError { stage: InfraStage::Sandbox, message: message.to_owned() }
}
