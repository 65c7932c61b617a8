//! The emulated platform's own routes, as a script outside would use them (docs/SANDBOX.md).

use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::Value;

use crate::http::{self, Proxying, Settings};

use super::error::DemoError;

/// Every answer but a wait for held requests comes at once.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Platform {
    base: String,
    client: Client,
}

impl Platform {
    pub(super) fn new(base: &str) -> Result<Self, DemoError> {
        let client = http::client(&Settings {
            proxying: Proxying::Direct,
            ..Settings::default()
        })?;
        Ok(Self {
            base: base.to_owned(),
            client,
        })
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<(), DemoError> {
        self.send(Method::POST, path, Some(body)).await.map(drop)
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), DemoError> {
        self.send(Method::DELETE, path, None).await.map(drop)
    }

    pub(super) async fn get(&self, path: &str) -> Result<Vec<u8>, DemoError> {
        self.send(Method::GET, path, None).await
    }

    pub(super) async fn get_json(&self, path: &str) -> Result<Value, DemoError> {
        let body = self.get(path).await?;
        serde_json::from_slice(&body).map_err(|_| DemoError::Odd {
            command: format!("GET {path}"),
            said: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// A session as it arrived; `None` if nothing of it did.
    pub(super) async fn session(
        &self,
        tenant: &str,
        session: &str,
    ) -> Result<Option<Vec<u8>>, DemoError> {
        match self
            .get(&format!("/_sandbox/sessions/{tenant}/{session}"))
            .await
        {
            Err(DemoError::Refused { status: 404, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, DemoError> {
        let request = format!("{method} {path}");
        let failed = |source| DemoError::Platform {
            request: request.clone(),
            source,
        };
        let mut sending = self
            .client
            .request(method, format!("{}{path}", self.base))
            .timeout(PATIENCE);
        if let Some(body) = body {
            sending = sending.json(body);
        }
        let answer = sending.send().await.map_err(failed)?;
        let status = answer.status();
        let said = answer.bytes().await.map_err(failed)?;
        if !status.is_success() {
            return Err(DemoError::Refused {
                status: status.as_u16(),
                said: String::from_utf8_lossy(&said).into_owned(),
                request,
            });
        }
        Ok(said.to_vec())
    }
}
