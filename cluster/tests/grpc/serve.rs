//! Sockets and their life: whose they are, which are replaced, and what shutting down does.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use revfs_api::client::{Endpoint, connect_with};
use revfs_api::keyspace::{Error, Op, Origin, Revision, Txn};
use revfs_api::wire::etcdserverpb::PutRequest;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_cluster::grpc::{Drained, Listen, ListenError, ServeError, serve};
use tonic::Code;

use crate::scripted::{Scripted, Served, on, place, put, quick, remote};

#[tokio::test]
async fn the_socket_is_for_its_owner_alone_and_goes_with_the_server() {
    let (_directory, socket) = place();
    let served = Served::start(&socket, Scripted::new()).await;
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    assert_eq!(served.stop().await, Drained::Clean);
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_but_not_one_that_answers() {
    let (_directory, socket) = place();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let served = Served::start(&socket, Scripted::new()).await;

    let second = serve(on(&socket), Scripted::new(), std::future::pending()).await;
    let error = second.map(drop).unwrap_err();
    assert!(matches!(error, ServeError::Listen(ListenError::Answered { .. })), "{error:?}");
    assert!(error.to_string().contains(socket.to_str().unwrap()), "{error}");
    assert!(remote(&socket, quick()).await.is_ok(), "the first server still answers");
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn what_is_not_a_socket_is_left_alone() {
    let (_directory, socket) = place();
    std::fs::write(&socket, "precious").unwrap();
    let error = serve(on(&socket), Scripted::new(), std::future::pending()).await;
    let error = error.map(drop).unwrap_err();
    assert!(matches!(error, ServeError::Listen(ListenError::NotASocket { .. })), "{error:?}");
    assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
}

#[tokio::test]
async fn a_socket_that_took_the_place_of_ours_is_left_alone() {
    let (_directory, socket) = place();
    let served = Served::start(&socket, Scripted::new()).await;
    std::fs::remove_file(&socket).unwrap();
    let other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(served.stop().await, Drained::Clean);
    assert!(socket.exists());
    drop(other);
}

#[tokio::test]
async fn a_socket_path_over_the_kernels_bound_works() {
    let (directory, _) = place();
    let deep = directory.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    let socket = deep.join("socket");
    let served = Served::start(&socket, Scripted::new()).await;
    let remote = remote(&socket, quick()).await.unwrap();
    remote.txn(put(), Origin::default()).await.unwrap();
    assert_eq!(served.stop().await, Drained::Clean);
    assert!(!socket.exists());
}

#[tokio::test]
async fn several_addresses_serve_one_key_space() {
    let (_directory, socket) = place();
    let any_port = "127.0.0.1:0".parse().unwrap();
    let listen = Listen { tcp: vec![any_port, any_port], ..on(&socket) };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async { stopped.await.unwrap_or_default() };
    let keyspace = Scripted::new();
    let handle = serve(listen, keyspace.clone(), stopped).await.unwrap();
    assert_eq!(handle.socket(), Some(socket.as_path()));
    let mut endpoints = vec![Endpoint::Unix(socket.clone())];
    for address in handle.tcp() {
        endpoints.push(format!("http://{address}").parse().unwrap());
    }
    for endpoint in &endpoints {
        let remote = connect_with(&endpoint.clone().into(), quick()).await.unwrap();
        remote.txn(put(), Origin::default()).await.unwrap();
    }
    assert_eq!(keyspace.txns.load(Ordering::SeqCst), 3);
    stop.send(()).unwrap();
    assert_eq!(handle.finished().await, Drained::Clean);
    let refused = connect_with(&endpoints[1].clone().into(), quick()).await;
    let refused = refused.map(drop).unwrap_err();
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (_directory, socket) = place();
    let listen = Listen { tcp: vec![address], ..on(&socket) };
    let error = serve(listen, Scripted::new(), std::future::pending()).await;
    let error = error.map(drop).unwrap_err().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
    assert!(!socket.exists(), "no socket is left behind");
}

#[tokio::test]
async fn what_runs_at_shutdown_is_finished_and_answered() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let remote = remote(&socket, quick()).await.unwrap();
    keyspace.close_gate();
    let change = tokio::spawn(async move { remote.txn(put(), Origin::default()).await });
    while keyspace.txns.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let handle = served.signal();
    keyspace.open_gate();
    assert_eq!(change.await.unwrap().unwrap().revision, Revision(2));
    assert_eq!(handle.finished().await, Drained::Clean);
}

#[tokio::test]
async fn a_request_that_hangs_does_not_hold_up_the_shutdown() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let remote = remote(&socket, quick()).await.unwrap();
    keyspace.close_gate();
    let read = tokio::spawn(async move { remote.read(Revision::NONE, vec![]).await });
    while keyspace.reads.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    assert_eq!(served.stop().await, Drained::Cut);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(read.await.unwrap().is_err());
}

#[tokio::test]
async fn a_request_over_etcds_bound_is_refused_in_etcds_words() {
    let (_directory, socket) = place();
    let listen = Listen { tcp: vec!["127.0.0.1:0".parse().unwrap()], ..on(&socket) };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async { stopped.await.unwrap_or_default() };
    let keyspace = Scripted::new();
    let handle = serve(listen, keyspace.clone(), stopped).await.unwrap();
    let mut kv = KvClient::connect(format!("http://{}", handle.tcp()[0])).await.unwrap();
    let of = |bytes: usize| PutRequest {
        key: "/key".into(),
        value: vec![7; bytes].into(),
        ..PutRequest::default()
    };
    kv.put(of(1_572_800)).await.unwrap();
    let status = kv.put(of(1_572_865)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "etcdserver: request is too large");
    assert_eq!(keyspace.txns.load(Ordering::SeqCst), 1);
    let larger = Txn { success: vec![Op::put("/key", vec![7; 1_572_865])], ..Txn::default() };
    remote(&socket, quick()).await.unwrap().txn(larger, Origin::default()).await.unwrap();
    drop(kv);
    stop.send(()).unwrap();
    assert_eq!(handle.finished().await, Drained::Clean);
}
