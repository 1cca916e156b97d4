//! A small Elasticsearch that keeps documents in memory, counts what it is asked, and fails as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::store::elasticsearch::address::Address;
use crate::store::elasticsearch::breaker::BreakerOptions;
use crate::store::elasticsearch::client::ClientOptions;
use crate::store::elasticsearch::{ElasticsearchOptions, ElasticsearchStore, QueueIdentity};

/// What the next bulk of records meets.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The whole request is answered so.
    Status(u16, &'static str),
    /// These items (by number in the request) are answered with status and type, the others are stored.
    Items(Vec<(usize, u16, &'static str)>),
    /// All is stored, but the answer does not come.
    HangAfter,
    /// Nothing is stored and no answer comes.
    Hang,
    /// All is stored, half an answer comes and the connection is cut.
    CutAfter,
    /// All is stored, the answer is no JSON.
    Garbage,
    /// All is stored, the answer names too few items.
    TooFew,
    /// More documents than this at once are too much: 413.
    TooLargeBeyond(usize),
}

#[derive(Default)]
pub struct Held {
    /// Index → id → document.
    pub indices: BTreeMap<String, BTreeMap<String, Json>>,
    pub aliases: BTreeMap<String, String>,
    pub mappings: BTreeMap<String, Json>,
    pub faults: VecDeque<Fault>,
    /// How many documents each bulk of records had.
    pub bulks: Vec<usize>,
    pub authorizations: Vec<Option<String>>,
    pub encodings: Vec<Option<String>>,
    pub n_requests: usize,
    pub is_down: bool,
    /// Bulks being worked on now, and the most there were at once.
    pub in_work: (usize, usize),
    pub delay: Duration,
    /// How often each document of Logyard's own indices was written: its `_seq_no`.
    pub writes: BTreeMap<(String, String), u64>,
    pub cluster: Option<String>,
    /// The answer to everything.
    pub refusal: Option<(u16, String)>,
}

#[derive(Clone)]
pub struct Fake {
    pub address: SocketAddr,
    pub held: Arc<Mutex<Held>>,
}

/// What a connection does after the answer's head.
enum Ending {
    Whole(StatusCode, Vec<u8>),
    Cut,
    Never,
}

impl Fake {
    /// A proxy of raw bytes stands before the HTTP server, so that connections can be cut.
    pub async fn start() -> Self {
        let held: Arc<Mutex<Held>> = Arc::default();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = http.local_addr().unwrap();
        let fake = Self {
            address,
            held: held.clone(),
        };
        let serving = fake.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = http.accept().await.unwrap();
                if held.lock().is_down {
                    continue;
                }
                let fake = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let fake = fake.clone();
                        async move { fake.handle(request).await }
                    });
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A handler that fails cuts the connection.
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        fake
    }

    pub fn options(&self) -> ElasticsearchOptions {
        let mut client = ClientOptions::new(
            Address::parse(&format!("elasticsearch://{}", self.address)).unwrap(),
        );
        client.first_byte_timeout = Duration::from_millis(300);
        client.breaker = BreakerOptions {
            failures_max: 5,
            pause_min: Duration::from_millis(200),
            pause_max: Duration::from_millis(400),
        };
        let mut options = ElasticsearchOptions::new(client, QueueIdentity("fake".to_owned()));
        options.write_limit = Duration::from_secs(5);
        // The tests count requests.
        options.poll_interval = Duration::from_secs(3_600);
        options
    }

    pub async fn store(&self) -> ElasticsearchStore {
        ElasticsearchStore::connect(self.options()).await.unwrap()
    }

    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.held.lock().faults.extend(faults);
    }

    /// All records held, over all daily indices.
    pub fn records(&self) -> Vec<Json> {
        let held = self.held.lock();
        let daily = held
            .indices
            .iter()
            .filter(|(name, _)| name.starts_with("logs-"));
        daily
            .flat_map(|(_, documents)| documents.values().cloned())
            .collect()
    }

    pub fn letters(&self) -> Vec<Json> {
        let held = self.held.lock();
        let letters = held.indices.get("logyard-dead-letters");
        letters
            .into_iter()
            .flat_map(|documents| documents.values().cloned())
            .collect()
    }

    async fn handle(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => return Err(std::io::Error::other(e)),
        };
        let header = |name: &str| {
            let value = head.headers.get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let encoding = header("content-encoding");
        let body = match encoding.as_deref() {
            Some("gzip") => {
                let mut plain = Vec::new();
                std::io::Read::read_to_end(
                    &mut flate2::read::GzDecoder::new(&body[..]),
                    &mut plain,
                )
                .unwrap();
                plain
            }
            _ => body.to_vec(),
        };
        {
            let mut held = self.held.lock();
            held.n_requests += 1;
            held.authorizations.push(header("authorization"));
            held.encodings.push(encoding);
            if held.is_down {
                return Err(std::io::Error::other("down"));
            }
        }
        let path = head.uri.path().to_owned();
        let refusal = self.held.lock().refusal.clone();
        if let Some((status, body)) = refusal {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            return Ok(response);
        }
        let ending = match (&head.method, path.as_str()) {
            (&Method::POST, "/_bulk") => self.bulk(&body).await,
            _ => {
                let (status, body) = self.admin(&head.method, &path, &body);
                Ending::Whole(
                    StatusCode::from_u16(status).unwrap(),
                    body.to_string().into(),
                )
            }
        };
        match ending {
            Ending::Whole(status, body) => {
                let mut response = Response::new(Full::new(Bytes::from(body)));
                *response.status_mut() = status;
                Ok(response)
            }
            Ending::Cut => Err(std::io::Error::other("cut")),
            Ending::Never => {
                std::future::pending::<Infallible>().await;
                unreachable!()
            }
        }
    }

    async fn bulk(&self, body: &[u8]) -> Ending {
        let text = std::str::from_utf8(body).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let documents: Vec<(Json, Json)> = lines
            .chunks(2)
            .map(|pair| {
                (
                    serde_json::from_str(pair[0]).unwrap(),
                    serde_json::from_str(pair[1]).unwrap(),
                )
            })
            .collect();
        let (fault, delay) = {
            let mut held = self.held.lock();
            held.bulks.push(documents.len());
            held.in_work.0 += 1;
            held.in_work.1 = held.in_work.1.max(held.in_work.0);
            let fault = match held.faults.front() {
                // Stays until the requests are small enough.
                Some(Fault::TooLargeBeyond(max)) if *max < documents.len() => {
                    Some(Fault::Status(413, "too large"))
                }
                Some(Fault::TooLargeBeyond(_)) => None,
                _ => held.faults.pop_front(),
            };
            (fault, held.delay)
        };
        tokio::time::sleep(delay).await;
        self.held.lock().in_work.0 -= 1;
        match fault {
            Some(Fault::Status(status, text)) => {
                let body = json!({"error": {"type": "some_exception", "reason": text}}).to_string();
                Ending::Whole(StatusCode::from_u16(status).unwrap(), body.into())
            }
            Some(Fault::Hang) => Ending::Never,
            Some(Fault::Items(items)) => {
                Ending::Whole(StatusCode::OK, self.store_items(&documents, &items))
            }
            Some(Fault::HangAfter) => {
                self.store_items(&documents, &[]);
                Ending::Never
            }
            Some(Fault::CutAfter) => {
                self.store_items(&documents, &[]);
                Ending::Cut
            }
            Some(Fault::Garbage) => {
                self.store_items(&documents, &[]);
                Ending::Whole(StatusCode::OK, b"{\"items\":[{\"cre".to_vec())
            }
            Some(Fault::TooFew) => {
                self.store_items(&documents, &[]);
                Ending::Whole(StatusCode::OK, b"{\"errors\":false,\"items\":[]}".to_vec())
            }
            Some(Fault::TooLargeBeyond(_)) | None => {
                Ending::Whole(StatusCode::OK, self.store_items(&documents, &[]))
            }
        }
    }

    fn store_items(&self, documents: &[(Json, Json)], failing: &[(usize, u16, &str)]) -> Vec<u8> {
        let mut held = self.held.lock();
        let mut items = Vec::new();
        for (index, (action, document)) in documents.iter().enumerate() {
            let action = &action["create"];
            let alias = action["_index"].as_str().unwrap();
            if let Some((_, status, kind)) = failing.iter().find(|(failing, ..)| *failing == index)
            {
                items.push(json!({"create": {"status": status, "error": {"type": kind, "reason": "as told"}}}));
                continue;
            }
            let Some(name) = held.aliases.get(alias).cloned() else {
                items.push(json!({"create": {"status": 404, "error": {"type": "index_not_found_exception", "reason": alias}}}));
                continue;
            };
            let id = action["_id"].as_str().unwrap().to_owned();
            let documents = held.indices.entry(name).or_default();
            let status = match documents.contains_key(&id) {
                true => 409,
                false => 201,
            };
            documents.entry(id).or_insert_with(|| document.clone());
            items.push(json!({"create": {"status": status}}));
        }
        json!({"errors": true, "items": items}).to_string().into()
    }

    /// Everything besides bulks of records, as far as a writer needs it.
    fn admin(&self, method: &Method, path: &str, body: &[u8]) -> (u16, Json) {
        let mut held = self.held.lock();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let json = || serde_json::from_slice::<Json>(body).unwrap_or_default();
        let missing = (
            404,
            json!({"error": {"type": "index_not_found_exception", "reason": path}}),
        );
        match (method.as_str(), &parts[..]) {
            ("GET", [""]) => (
                200,
                json!({"version": {"number": "8.19.9"}, "cluster_uuid": held.cluster_uuid()}),
            ),
            ("PUT", ["_index_template", _]) | ("PUT", [_, "_create", _]) => (200, json!({})),
            ("PUT", [index]) => {
                let aliases = json()["aliases"].as_object().cloned().unwrap_or_default();
                for alias in aliases.keys() {
                    held.aliases.insert(alias.clone(), (*index).to_owned());
                }
                held.indices.entry((*index).to_owned()).or_default();
                held.mappings.insert(
                    (*index).to_owned(),
                    json!({"dynamic": "false", "subobjects": false, "properties": {}}),
                );
                (200, json!({}))
            }
            ("GET", [index]) => match held.mappings.get(*index) {
                None => missing,
                Some(mapping) => {
                    let aliases: serde_json::Map<String, Json> = held
                        .aliases
                        .iter()
                        .filter(|(_, of)| of == index)
                        .map(|(alias, _)| (alias.clone(), json!({})))
                        .collect();
                    (
                        200,
                        json!({*index: {"mappings": mapping, "aliases": aliases, "settings": {"index": {"mapping": {"total_fields": {"limit": "5000"}}}}}}),
                    )
                }
            },
            ("PUT", [index, "_mapping"]) => {
                let added = json()["properties"]
                    .as_object()
                    .cloned()
                    .unwrap_or_default();
                let properties = held.mappings.get_mut(*index).unwrap()["properties"]
                    .as_object_mut()
                    .unwrap();
                properties.extend(added);
                (200, json!({}))
            }
            ("POST", [index, "_mget"]) => (200, held.many(index, &json())),
            ("POST", [index, "_bulk"]) => (200, held.put_all(index, body)),
            ("POST", [_, "_refresh"]) => (200, json!({"_shards": {"failed": 0}})),
            ("POST", [_, "_search"]) => (
                200,
                json!({"hits": {"hits": []}, "aggregations": {"bytes": {"value": 0}}}),
            ),
            ("GET", [index, "_doc", id]) => {
                let id = id.replace("%2F", "/");
                match held.one(index, &id) {
                    found if found["found"] == true => (200, found),
                    _ => missing,
                }
            }
            _ => (
                400,
                json!({"error": {"type": "unknown_to_the_fake", "reason": format!("{method} {path}")}}),
            ),
        }
    }
}

impl Held {
    fn cluster_uuid(&self) -> &str {
        self.cluster.as_deref().unwrap_or("fake")
    }

    /// A document as `_doc` and `_mget` show it.
    fn one(&self, index: &str, id: &str) -> Json {
        let documents = self.indices.get(index);
        match documents.and_then(|documents| documents.get(id)) {
            None => json!({"_id": id, "found": false}),
            Some(source) => {
                let seq_no = self.writes.get(&(index.to_owned(), id.to_owned()));
                json!({"_id": id, "found": true, "_seq_no": seq_no, "_primary_term": 1, "_source": source})
            }
        }
    }

    fn many(&self, index: &str, asked: &Json) -> Json {
        let ids = asked["ids"].as_array().cloned().unwrap_or_default();
        let find = |id: &Json| self.one(index, id.as_str().unwrap());
        json!({"docs": ids.iter().map(find).collect::<Vec<_>>()})
    }

    /// A bulk of `index` and `create` actions.
    fn put_all(&mut self, index: &str, body: &[u8]) -> Json {
        let lines: Vec<&str> = std::str::from_utf8(body).unwrap().lines().collect();
        let mut items = Vec::new();
        for pair in lines.chunks(2) {
            let action: Json = serde_json::from_str(pair[0]).unwrap();
            let (kind, action) = action.as_object().unwrap().iter().next().unwrap();
            let id = action["_id"].as_str().unwrap().to_owned();
            let key = (index.to_owned(), id.clone());
            let seq_no = self.writes.get(&key).copied();
            let is_refused = match action.get("if_seq_no") {
                Some(wanted) => wanted.as_u64() != seq_no,
                None => kind == "create" && seq_no.is_some(),
            };
            if is_refused {
                items.push(json!({kind.as_str(): {"status": 409}}));
                continue;
            }
            self.writes
                .insert(key, seq_no.map_or(0, |seq_no| seq_no + 1));
            let documents = self.indices.entry(index.to_owned()).or_default();
            documents.insert(id, serde_json::from_str(pair[1]).unwrap());
            items.push(json!({kind.as_str(): {"status": 200}}));
        }
        json!({"items": items})
    }
}

/// A server that accepts, reads and says nothing; with `head`, it sends that and then nothing more.
pub async fn silent_server(head: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(head).await;
                std::future::pending::<Infallible>().await;
            });
        }
    });
    address
}
