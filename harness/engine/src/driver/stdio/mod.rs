//! An agent that speaks the submission/event queue protocol as JSON lines on its stdin and stdout:
//! `{"id","op"}` in, `{"id","msg"}` out.

mod session;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use cutpoint_agent::Defect;
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{AgentInfo, Feature};

use self::session::StdioSession;
use super::agent_kind::{AgentKind, Choice, Declaration, Form, LaunchContext, Offer};
use super::json_rpc::{self, JsonRpcSession, Launch};
use super::kit::program::SessionProgram;
use super::reference::{self, Access};
use super::{AgentError, AgentSession, CaseEnv, Driver};

/// How the driver is called.
const DRIVER: &str = "stdio";

/// `--agent reference-stdio`
pub struct ReferenceProcess;

const REFERENCE_PROCESS: Declaration = Declaration {
    name: "reference-stdio",
    forms: &[Form {
        suffix: "",
        help: "the same agent in a process of its own",
    }],
    driver: DRIVER,
    takes_defects: true,
    shell_tools: reference::SHELL_TOOLS,
    marker: reference::MARKER,
    rollout: reference::ROLLOUT,
    how_to_get: "it is part of cutpoint",
};

const REFERENCE_ACCESS: Access = Access {
    in_process: false,
    json_rpc: false,
    is_reference: true,
};

#[async_trait]
impl AgentKind for ReferenceProcess {
    fn declaration(&self) -> &'static Declaration {
        &REFERENCE_PROCESS
    }

    fn capabilities(&self) -> Offer<Capability> {
        REFERENCE_ACCESS.capabilities()
    }

    fn features(&self) -> Offer<Feature> {
        REFERENCE_ACCESS.features()
    }

    async fn driver(
        &self,
        _: &Choice,
        context: &LaunchContext,
    ) -> Result<Arc<dyn Driver>, AgentError> {
        Ok(Arc::new(StdioDriver {
            name: reference::NAME,
            access: REFERENCE_ACCESS,
            program: SessionProgram::reference(&[], context),
            front: SessionProgram::reference(json_rpc::OPTIONS, context),
            defects: context.defects.clone(),
        }))
    }
}

/// `--agent stdio:PROGRAM`
pub struct AnyProgram;

const ANY_PROGRAM: Declaration = Declaration {
    name: "stdio",
    forms: &[Form {
        suffix: ":PROGRAM",
        help: "a program of your own that speaks the same JSON lines",
    }],
    driver: DRIVER,
    takes_defects: false,
    shell_tools: reference::SHELL_TOOLS,
    marker: reference::MARKER,
    rollout: reference::ROLLOUT,
    how_to_get: "name your program: stdio:PROGRAM",
};

const PROGRAM_ACCESS: Access = Access {
    is_reference: false,
    ..REFERENCE_ACCESS
};

#[async_trait]
impl AgentKind for AnyProgram {
    fn declaration(&self) -> &'static Declaration {
        &ANY_PROGRAM
    }

    fn capabilities(&self) -> Offer<Capability> {
        PROGRAM_ACCESS.capabilities()
    }

    fn features(&self) -> Offer<Feature> {
        PROGRAM_ACCESS.features()
    }

    fn found(&self) -> Vec<Choice> {
        Vec::new()
    }

    async fn driver(
        &self,
        choice: &Choice,
        context: &LaunchContext,
    ) -> Result<Arc<dyn Driver>, AgentError> {
        let Choice::Program(path) = choice else {
            return Err(AgentError::NotInstalled(ANY_PROGRAM.how_to_get.to_owned()));
        };
        let program = SessionProgram::of_user(path, context)?;
        Ok(Arc::new(StdioDriver {
            name: ANY_PROGRAM.name,
            access: PROGRAM_ACCESS,
            front: program.clone(),
            program,
            defects: Vec::new(),
        }))
    }
}

struct StdioDriver {
    name: &'static str,
    access: Access,
    program: SessionProgram,
    /// The same agent through its JSON-RPC front, for scenarios that need it.
    front: SessionProgram,
    defects: Vec<Defect>,
}

#[async_trait]
impl Driver for StdioDriver {
    fn info(&self, needs: &BTreeSet<Capability>) -> AgentInfo {
        let access = self.access.for_needs(needs);
        let driver = if access.json_rpc {
            json_rpc::DRIVER
        } else {
            DRIVER
        };
        access.info(self.name, driver, &self.defects)
    }

    fn capabilities(&self, needs: &BTreeSet<Capability>) -> BTreeSet<Capability> {
        let can = self.access.for_needs(needs).capabilities();
        can.into_iter().map(|(it, _)| it).collect()
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn AgentSession>, AgentError> {
        if self.access.for_needs(&env.needs).json_rpc {
            return JsonRpcSession::start(env, Launch::Process(self.front.clone())).await;
        }
        let view = self
            .access
            .is_reference
            .then(|| self.defects.iter().copied().collect());
        StdioSession::start(env, self.program.clone(), view).await
    }
}
