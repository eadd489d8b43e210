//! What operators ask of a farm's coordinator.

use super::Farm;
use crate::exit::Complaint;
use flakefarm_coordinator::http::views::{DeadPage, Submitted, SweepView, SweepsPage, Workers};
use flakefarm_coordinator::http::{NewSchedule, ScheduleView, Schedules};
use flakefarm_shared::{JobId, SweepId};
use reqwest::{Method, StatusCode};

impl Farm {
    pub(crate) async fn sweeps(
        &self,
        project: Option<&str>,
        state: Option<&str>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<SweepsPage, Complaint> {
        let limit = limit.min(1_000).to_string();
        let all =
            [("project", project), ("state", state), ("before", before), ("limit", Some(limit.as_str()))];
        self.get(&format!("v1/sweeps?{}", query(&all))).await
    }

    pub(crate) async fn workers(&self) -> Result<Workers, Complaint> {
        self.get("v1/workers").await
    }

    pub(crate) async fn dead(&self, before: Option<&str>, limit: u32) -> Result<DeadPage, Complaint> {
        let limit = limit.min(1_000).to_string();
        let all = [("before", before), ("limit", Some(limit.as_str()))];
        self.get(&format!("v1/dead?{}", query(&all))).await
    }

    pub(crate) async fn schedules(&self) -> Result<Schedules, Complaint> {
        self.get("v1/schedules").await
    }

    pub(crate) async fn add_schedule(&self, schedule: &NewSchedule) -> Result<ScheduleView, Complaint> {
        let request = self.request(Method::POST, "v1/schedules")?.timeout(super::TIMEOUT).json(schedule);
        Ok(self.send(request).await?.json().await?)
    }

    /// Fires a schedule now; gives the id of its sweep.
    pub(crate) async fn run_schedule(&self, id: &str) -> Result<String, Complaint> {
        let request = self.request(Method::POST, &format!("v1/schedules/{id}/run"))?.timeout(super::TIMEOUT);
        let submitted: Submitted = self.send(request).await?.json().await?;
        Ok(submitted.id)
    }

    /// `pause` or `resume`.
    pub(crate) async fn change_schedule(&self, id: &str, action: &str) -> Result<(), Complaint> {
        let request =
            self.request(Method::POST, &format!("v1/schedules/{id}/{action}"))?.timeout(super::TIMEOUT);
        self.send(request).await?;
        Ok(())
    }

    pub(crate) async fn remove_schedule(&self, id: &str) -> Result<(), Complaint> {
        let request = self.request(Method::DELETE, &format!("v1/schedules/{id}"))?.timeout(super::TIMEOUT);
        self.send(request).await?;
        Ok(())
    }

    /// `requeue` or `discard`.
    pub(crate) async fn change_dead(&self, job: JobId, action: &str) -> Result<(), Complaint> {
        let request = self.request(Method::POST, &format!("v1/dead/{job}/{action}"))?.timeout(super::TIMEOUT);
        self.send(request).await?;
        Ok(())
    }

    /// Cancels a sweep and waits for no report; gives the word of its state.
    pub(crate) async fn cancel_only(&self, sweep: SweepId) -> Result<String, Complaint> {
        let request = self.request(Method::DELETE, &format!("v1/sweeps/{sweep}"))?.timeout(super::TIMEOUT);
        let response = self.send(request).await?;
        if response.status() == StatusCode::ACCEPTED {
            let view: SweepView = response.json().await?;
            return Ok(view.state);
        }
        Ok(self.status(sweep).await?.state)
    }
}

/// Parameters for behind a question mark; those without a value are left out.
fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let given = parameters.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish()
}
