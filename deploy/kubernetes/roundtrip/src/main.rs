//! Reads Kubernetes objects, one JSON document a line, into the types that clients of its API have, and writes them back: what
//! is not the same afterwards means something else to them than it says. Prints each difference; other projects' resources
//! are left alone. The last line says how many objects were read and how many were left alone.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, LimitRange, Namespace, PersistentVolumeClaim, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{BufRead, Error};

fn main() -> Result<(), Error> {
    let (mut read, mut left_alone, mut wrong) = (0, 0, 0);
    for line in std::io::stdin().lock().lines() {
        let object: Value = serde_json::from_str(&line?)?;
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let name = format!("{kind} {}", text(&object["metadata"]["name"]));
        let Some(back) = round(version, kind, object.clone()) else {
            // Whoever gives Kubernetes further resources names a domain of their own.
            if version
                .split('/')
                .next()
                .is_some_and(|group| group.contains('.') && !group.ends_with(".k8s.io"))
            {
                left_alone += 1;
            } else {
                wrong += 1;
                println!("{name}: {version} has no such resource here");
            }
            continue;
        };
        read += 1;
        let mut differences = Vec::new();
        match back {
            Ok(back) => differ(&object, &back, String::new(), &mut differences),
            Err(error) => differences.push(error.to_string()),
        }
        wrong += differences.len();
        for difference in differences {
            println!("{name}: {difference}");
        }
    }
    println!("{read} objects were read and written, {left_alone} are other projects'");
    std::process::exit(i32::from(wrong > 0));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// None: a resource that is not among those that are used here.
fn round(version: &str, kind: &str, object: Value) -> Option<Result<Value, serde_json::Error>> {
    Some(match (version, kind) {
        ("v1", "ConfigMap") => through::<ConfigMap>(object),
        ("v1", "LimitRange") => through::<LimitRange>(object),
        ("v1", "Namespace") => through::<Namespace>(object),
        ("v1", "PersistentVolumeClaim") => through::<PersistentVolumeClaim>(object),
        ("v1", "ResourceQuota") => through::<ResourceQuota>(object),
        ("v1", "Secret") => through::<Secret>(object),
        ("v1", "Service") => through::<Service>(object),
        ("v1", "ServiceAccount") => through::<ServiceAccount>(object),
        ("apps/v1", "Deployment") => through::<Deployment>(object),
        ("apps/v1", "StatefulSet") => through::<StatefulSet>(object),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => through::<HorizontalPodAutoscaler>(object),
        ("batch/v1", "CronJob") => through::<CronJob>(object),
        ("batch/v1", "Job") => through::<Job>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => through::<NetworkPolicy>(object),
        ("policy/v1", "PodDisruptionBudget") => through::<PodDisruptionBudget>(object),
        _ => return None,
    })
}

fn through<T: DeserializeOwned + Serialize>(object: Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(object)?)
}

fn differ(before: &Value, after: &Value, at: String, differences: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                differ(value, after.get(key).unwrap_or(&Value::Null), format!("{at}.{key}"), differences);
            }
            // What the types say of themselves wherever they are written.
            let own = ["apiVersion", "kind"];
            let added = after.keys().filter(|key| !before.contains_key(*key) && !own.contains(&key.as_str()));
            differences.extend(added.map(|key| format!("{at}.{key} came in")));
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (place, (before, after)) in before.iter().zip(after).enumerate() {
                differ(before, after, format!("{at}[{place}]"), differences);
            }
        }
        // Nothing, said or not.
        (Value::Object(before), Value::Null) if before.is_empty() => {}
        _ if before == after => {}
        _ => differences.push(format!("{at} is {before}, and {after} once it was read")),
    }
}
