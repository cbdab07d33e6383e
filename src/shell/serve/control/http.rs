//! `/metrics`, `/healthz` and `/readyz`, on a thread of their own: whoever asks often or slowly costs
//! signalling nothing. Nothing is taken in but a request line and a token.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use zeroize::Zeroizing;

use super::metrics::{self, Snapshot};
use crate::base::ports::Clock;
use crate::config::model::Http;
use crate::host::clock::SystemClock;
use crate::host::process;
use crate::shell::secrets;

/// Connections at a time; the next one waits.
const CONNECTIONS_MAX: usize = 16;
/// A connection is ended after this, whatever it does: who scrapes each few seconds makes another.
const CONNECTION: Duration = Duration::from_secs(30);
/// From its begin to the end of a request's head.
const HEAD: Duration = Duration::from_secs(5);
/// A listener that cannot be had, or takes no connection, is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// Told after so many tries: after a reload the thread before it has gone by then.
const TOLD_AT: u32 = 10;
/// Figures older than this are those of a control that stands still, ns.
const STALE_NS: u64 = 5_000_000_000;

/// What is told, by control once a second.
pub(super) type Shared = Arc<Mutex<Arc<Snapshot>>>;

/// The thread; dropped, it ends.
pub(super) struct Service {
    _stop: oneshot::Sender<()>,
}

type Token = Option<Zeroizing<Vec<u8>>>;

impl Service {
    /// Answers from now on; `None` where nobody is to be answered, or the token cannot be read.
    pub(super) fn start(config: &Http, shared: &Shared) -> io::Result<Option<Self>> {
        if config.listen.is_empty() {
            return Ok(None);
        }
        let token = match config.token.as_deref().map(secrets::token).transpose() {
            Ok(token) => token,
            Err(why) => {
                tracing::error!("no figures over HTTP: {why}");
                return Ok(None);
            }
        };
        let (stop, stopped) = oneshot::channel();
        let (listen, shared) = (config.listen.clone(), Arc::clone(shared));
        std::thread::Builder::new().name("http".into()).spawn(move || {
            process::give_way();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(answer(listen, token, shared, stopped)),
                Err(error) => tracing::error!("no figures over HTTP: {error}"),
            }
        })?;
        Ok(Some(Service { _stop: stop }))
    }
}

async fn answer(
    listen: Vec<SocketAddr>,
    token: Token,
    shared: Shared,
    stopped: oneshot::Receiver<()>,
) {
    let (token, places) = (Arc::new(token), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    for at in listen {
        let (token, places, shared) = (token.clone(), places.clone(), shared.clone());
        tokio::spawn(async move {
            let listener = bind(at).await;
            loop {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let Ok((stream, _)) = listener.accept().await else {
                    // No descriptor is free just now.
                    tokio::time::sleep(AGAIN).await;
                    continue;
                };
                let (token, shared) = (token.clone(), shared.clone());
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(CONNECTION, serve(stream, &token, &shared)).await;
                    drop(place);
                });
            }
        });
    }
    // An error says the same: whoever holds the other end has gone.
    let _ = stopped.await;
}

async fn bind(at: SocketAddr) -> TcpListener {
    let mut tries = 0_u32;
    loop {
        match TcpListener::bind(at).await {
            Ok(listener) => return listener,
            Err(error) if tries == TOLD_AT => {
                tracing::error!("no figures over HTTP at {at} yet: {error}");
            }
            Err(_) => {}
        }
        tries = tries.saturating_add(1);
        tokio::time::sleep(AGAIN).await;
    }
}

async fn serve(stream: TcpStream, token: &Token, shared: &Shared) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, token, shared);
        async move { Ok::<_, Infallible>(response) }
    });
    // An error is the client's affair.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn respond<B>(request: &Request<B>, token: &Token, shared: &Shared) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let kind = "text/plain; charset=utf-8".parse().expect("a header's value");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n".to_owned());
    }
    let snapshot = Arc::clone(&shared.lock().expect("nobody panics with it"));
    let age_ns = SystemClock.mono().since(snapshot.at);
    let alive = age_ns < STALE_NS;
    let still = || format!("control has not turned for {} s\n", age_ns / 1_000_000_000);
    match request.uri().path() {
        "/healthz" if alive => plain(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if alive => match &snapshot.control.obstacle {
            None => plain(StatusCode::OK, "ready\n".to_owned()),
            Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/healthz" | "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, still()),
        "/metrics" if !is_let_in(request, token) => {
            let mut response = plain(StatusCode::UNAUTHORIZED, "a token is wanted\n".to_owned());
            let scheme = "Bearer".parse().expect("a header's value");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            response
        }
        "/metrics" => {
            let mut response = plain(StatusCode::OK, metrics::page(snapshot));
            let kind = metrics::CONTENT_TYPE.parse().expect("a header's value");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => plain(StatusCode::NOT_FOUND, "/metrics, /healthz, /readyz\n".to_owned()),
    }
}

fn is_let_in<B>(request: &Request<B>, token: &Token) -> bool {
    let Some(token) = token else { return true };
    let said = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    let said = said.and_then(|said| said.strip_prefix(b"Bearer "));
    said.is_some_and(|said| aws_lc_rs::constant_time::verify_slices_are_equal(said, token).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Mono;
    use crate::plane::control::Figures;

    fn status(method: &str, path: &str, said: Option<&str>, snapshot: Snapshot) -> u16 {
        let token: Token = Some(Zeroizing::new(b"secret".to_vec()));
        let mut request = Request::builder().method(method).uri(path);
        if let Some(said) = said {
            request = request.header(AUTHORIZATION, said);
        }
        let request = request.body(()).expect("a request");
        let shared = Arc::new(Mutex::new(Arc::new(snapshot)));
        respond(&request, &token, &shared).status().as_u16()
    }

    fn fresh() -> Snapshot {
        Snapshot { at: SystemClock.mono(), ..Snapshot::default() }
    }

    #[test]
    fn each_path_says_what_it_is_for() {
        assert_eq!(status("GET", "/healthz", None, fresh()), 200);
        assert_eq!(status("HEAD", "/readyz?x=1", None, fresh()), 200);
        let obstacle = Some("media is being started".to_owned());
        let control = Figures { obstacle, ..Figures::default() };
        assert_eq!(status("GET", "/readyz", None, Snapshot { control, ..fresh() }), 503);
        assert_eq!(status("GET", "/metrics", Some("Bearer secret"), fresh()), 200);
        for said in [None, Some("Bearer other"), Some("secret"), Some("Bearer secret1")] {
            assert_eq!(status("GET", "/metrics", said, fresh()), 401, "{said:?}");
        }
        assert_eq!(status("POST", "/metrics", Some("Bearer secret"), fresh()), 405);
        assert_eq!(status("GET", "/", None, fresh()), 404);
        // Of a control that stands still nothing is said to be well.
        let still = Snapshot { at: Mono(1), ..Snapshot::default() };
        assert_eq!(status("GET", "/healthz", None, still.clone()), 503);
        assert_eq!(status("GET", "/readyz", None, still), 503);
    }
}
