//! The image an environment starts from: found, pulled, or built from the project's Dockerfile.

use super::tree::Tree;
use super::{Images, PrepareError, key, refused};
use crate::sandbox::{BoundedOutput, infra, is_missing, label};
use bollard::body_full;
use bollard::errors::Error;
use bollard::query_parameters::{BuildImageOptionsBuilder, CreateImageOptionsBuilder};
use flakefarm_shared::{Digest, ImageSource, InfraStage};
use futures::StreamExt;
use std::collections::HashMap;

const REPOSITORY_BASE: &str = "flakefarm/base";
const LOG_HALF: usize = 64 << 10;
const LOG_LINES: usize = 40;

impl Images {
    /// The id of the image to start from.
    pub(super) async fn base_image(
        &self,
        source: &ImageSource,
        snapshot: &Digest,
        tree: &Tree,
        progress: &(impl Fn(String) + Send + Sync),
    ) -> Result<String, PrepareError> {
        match source {
            ImageSource::Reference(reference) => self.referenced(reference, progress).await,
            ImageSource::Dockerfile(path) => {
                let tag = key(&[super::images::RECIPE, path, snapshot.as_str()]);
                self.cached(REPOSITORY_BASE, &tag, self.built(path, tree, &tag, progress)).await
            }
        }
    }

    async fn referenced(
        &self,
        reference: &str,
        progress: &(impl Fn(String) + Send + Sync),
    ) -> Result<String, PrepareError> {
        match self.engine.docker().inspect_image(reference).await {
            Ok(image) => return Ok(image.id.unwrap_or_else(|| reference.to_owned())),
            Err(error) if is_missing(&error) => {}
            Err(error) => {
                return Err(infra(InfraStage::Environment, "failed to look for an image", &error).into());
            }
        }
        progress(format!("pulling image {reference}"));
        let options = CreateImageOptionsBuilder::default().from_image(&with_tag(reference)).build();
        let mut pull = self.engine.docker().create_image(Some(options), None, None);
        while let Some(said) = pull.next().await {
            let failure = match said {
                Ok(info) => match info.error_detail.and_then(|detail| detail.message) {
                    Some(message) => message,
                    None => continue,
                },
                Err(error) => ours_or_said(&format!("failed to pull image `{reference}`"), error)?,
            };
            return Err(refused(
                format!("image `{reference}` is not here and could not be pulled"),
                &failure,
                Some("check its name, or make it available with `docker pull` or `docker load`"),
            ));
        }
        let pulled = self.engine.docker().inspect_image(reference).await;
        let pulled = pulled
            .map_err(|error| infra(InfraStage::Environment, "failed to find a pulled image", &error))?;
        Ok(pulled.id.unwrap_or_else(|| reference.to_owned()))
    }

    async fn built(
        &self,
        dockerfile: &str,
        tree: &Tree,
        tag: &str,
        progress: &(impl Fn(String) + Send + Sync),
    ) -> Result<String, PrepareError> {
        progress(format!("building image from {dockerfile}"));
        let reference = format!("{REPOSITORY_BASE}:{tag}");
        let labels = HashMap::from([(label(super::images::KIND), "base".to_owned())]);
        let mut options = BuildImageOptionsBuilder::default();
        // The client library cannot say more than 2 GiB of a build; what is more is the engine's to hold.
        if let Ok(bytes) = i32::try_from(self.setup.memory) {
            options = options.memory(bytes).memswap(bytes);
        }
        let options = options
            .dockerfile(dockerfile)
            .t(&reference)
            .labels(&labels)
            .networkmode(self.setup.network().unwrap_or("none"))
            .rm(true)
            .forcerm(true)
            .build();
        let mut log = BoundedOutput::new(LOG_HALF);
        let mut build =
            self.engine.docker().build_image(options, None, Some(body_full(tree.tar.clone().into())));
        while let Some(said) = build.next().await {
            let failure = match said {
                Ok(info) => {
                    log.push(info.stream.unwrap_or_default().as_bytes());
                    match info.error_detail.and_then(|detail| detail.message) {
                        Some(message) => message,
                        None => continue,
                    }
                }
                Err(error) => ours_or_said(&format!("failed to build `{dockerfile}`"), error)?,
            };
            log.push(format!("\n{failure}\n").as_bytes());
            return Err(refused(
                format!("`{dockerfile}` could not be built"),
                &super::workshop::mask_credentials(&log.last_lines(LOG_LINES)),
                Some("run `docker build` in the project to see the whole log"),
            ));
        }
        let made = self.engine.docker().inspect_image(&reference).await;
        let made =
            made.map_err(|error| infra(InfraStage::Environment, "failed to find a built image", &error))?;
        Ok(made.id.unwrap_or(reference))
    }
}

/// What the engine said, unless the failure is the engine's own.
fn ours_or_said(what: &str, error: Error) -> Result<String, PrepareError> {
    let said = match &error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        _ => return Err(infra(InfraStage::Environment, what, &error).into()),
    };
    if said.contains("no space left on device") {
        return Err(infra(InfraStage::Environment, what, &error).into());
    }
    Ok(said)
}

/// A reference without tag or digest means `latest`; the engine would pull every tag.
fn with_tag(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    if name.contains(':') || name.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reference: &str, expect: &str) {
        assert_eq!(with_tag(reference), expect);
    }

    #[test]
    fn a_reference_without_tag_means_latest() {
        check("python", "python:latest");
        check("python:3.12", "python:3.12");
        check("host:5000/python", "host:5000/python:latest");
        check("python@sha256:0123", "python@sha256:0123");
    }
}
