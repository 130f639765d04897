//! Encrypted listeners: who is let in, who is refused with which alert, and certificates that change.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use revfs_api::client::{Endpoints, Settings, Tls as ClientTls, connect_with};
use revfs_api::keyspace::{Error, Origin};
use revfs_api::wire::authpb;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::auth_client::AuthClient;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::{PutRequest, RangeRequest};
use revfs_cluster::grpc::{Address, Listen, Listener, Shows};
use revfs_cluster::tls::{MinVersion, Tls, TlsError, TlsOptions};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::certificates::{Authority, Pair};
use crate::node::Node;
use crate::scripted::{put, quick};

/// Files that change are noticed long before this.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

/// What goes on the wire first, and every server answers: HTTP/2's greeting and empty settings.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

struct Server {
    node: Node,
    address: SocketAddr,
}

impl Server {
    async fn start(options: TlsOptions) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("it can be made"), options).await
    }

    async fn start_at(address: SocketAddr, options: TlsOptions) -> Self {
        let tls = Tls::load(options).expect("the files are good");
        let address = Address::Tcp(address);
        let listeners = vec![Listener { address, tls: Some(tls), shows: Shows::Everything }];
        let node = Node::start_with(Listen { listeners, ..Listen::default() }).await;
        let Address::Tcp(address) = node.bound()[0] else { panic!("it listens on TCP") };
        Self { node, address }
    }
}

fn options(directory: &Path, server: &Pair) -> TlsOptions {
    let (certificate, key) = server.write(directory);
    TlsOptions::new(certificate, key)
}

/// Only clients of this authority are let in.
fn only_for(authority: &Authority, directory: &Path, options: TlsOptions) -> TlsOptions {
    let path = directory.join("clients.pem");
    std::fs::write(&path, &authority.pem).expect("it can be made");
    TlsOptions { trusted_authorities: Some(path), ..options }
}

fn client(
    authority: &Authority,
    identity: Option<&Pair>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("it can be made"))
        .expect("it can be made");
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_protocol_versions(versions)
        .expect("it can be made")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes())
                .expect("it can be made");
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("it can be made");
            builder.with_client_auth_cert(vec![certificate], key).expect("it can be made")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Connects and waits for the server's first words; the certificate that it showed.
async fn greet(address: SocketAddr, config: ClientConfig) -> std::io::Result<Vec<u8>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("it can be made");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let shown = stream.get_ref().1.peer_certificates().map(|all| all[0].to_vec());
    stream.write_all(GREETING).await?;
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).await?;
    Ok(shown.expect("every server shows one"))
}

/// The alert with which the server refuses.
async fn refusal(address: SocketAddr, config: ClientConfig) -> AlertDescription {
    let error = greet(address, config).await.expect_err("it is refused");
    let source = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match source {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {error:?}"),
    }
}

#[tokio::test]
async fn requests_are_answered_over_tls_by_a_client_that_trusts_the_authority() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    let server = Server::start(options(directory.path(), &authority.issue("server", 1))).await;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority.pem));
    let channel = Channel::from_shared(format!("https://{}", server.address)).unwrap();
    let channel = channel.tls_config(tls.domain_name("localhost")).unwrap();
    let mut kv = KvClient::new(channel.connect().await.unwrap());
    let put = PutRequest { key: "a".into(), value: "b".into(), ..PutRequest::default() };
    kv.put(put).await.unwrap();
    let range = RangeRequest { key: "a".into(), ..RangeRequest::default() };
    assert_eq!(kv.range(range).await.unwrap().into_inner().kvs[0].value, "b");
    drop(kv);
    server.node.stop().await;
}

#[tokio::test]
async fn what_is_not_encrypted_is_not_answered() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    let server = Server::start(options(directory.path(), &authority.issue("server", 1))).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(GREETING).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    // An alert at most: the first byte of one is 21.
    assert!(answer.first().is_none_or(|&first| first == 21), "{answer:?}");
    server.node.stop().await;
}

#[tokio::test]
async fn clients_without_a_good_certificate_are_refused_each_with_its_alert() {
    let directory = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let stranger = Authority::new("strangers");
    let revoked = directory.path().join("revoked.pem");
    std::fs::write(&revoked, clients.revoke(&[7])).unwrap();
    let options = options(directory.path(), &servers.issue("server", 1));
    let options = only_for(&clients, directory.path(), options);
    let server = Server::start(TlsOptions { revoked: Some(revoked), ..options }).await;
    let of = |pair: Option<&Pair>| client(&servers, pair, BOTH);

    greet(server.address, of(Some(&clients.issue("good", 6)))).await.expect("it is let in");
    for (why, pair, alert) in [
        ("none", None, AlertDescription::CertificateRequired),
        (
            "expired",
            Some(clients.issue_until("old", 5, 2_001)),
            AlertDescription::CertificateExpired,
        ),
        ("revoked", Some(clients.issue("lost", 7)), AlertDescription::CertificateRevoked),
        ("other authority", Some(stranger.issue("good", 6)), AlertDescription::UnknownCA),
    ] {
        assert_eq!(refusal(server.address, of(pair.as_ref())).await, alert, "{why}");
    }
    greet(server.address, of(Some(&clients.issue("good", 8)))).await.expect("others are served");
    server.node.stop().await;
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let (servers, others) = (Authority::new("servers"), Authority::new("others"));
    let server = Server::start(options(directory.path(), &servers.issue("server", 1))).await;
    let error = greet(server.address, client(&others, None, BOTH)).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    server.node.stop().await;
}

#[tokio::test]
async fn tls_1_2_is_refused_where_the_minimum_is_1_3() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    let options = options(directory.path(), &authority.issue("server", 1));
    let both = Server::start(options.clone()).await;
    let strict = Server::start(TlsOptions { min_version: MinVersion::Tls13, ..options }).await;
    let old = || client(&authority, None, &[&rustls::version::TLS12]);
    let new = || client(&authority, None, &[&rustls::version::TLS13]);
    greet(both.address, old()).await.expect("1.2 is the minimum");
    greet(strict.address, new()).await.expect("1.3 is spoken");
    assert_eq!(refusal(strict.address, old()).await, AlertDescription::ProtocolVersion);
    both.node.stop().await;
    strict.node.stop().await;
}

#[tokio::test]
async fn a_suite_that_is_not_on_the_list_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    let options = options(directory.path(), &authority.issue("server", 1));
    let only = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let options = TlsOptions { cipher_suites: vec![only.to_owned()], ..options };
    let server = Server::start(options.clone()).await;
    let with = |name: &str| {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites.retain(|suite| suite.suite().as_str() == Some(name));
        let mut config = client(&authority, None, &[&rustls::version::TLS12]);
        let rebuilt = ClientConfig::builder_with_provider(Arc::new(provider));
        let rebuilt = rebuilt.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let alpn = std::mem::take(&mut config.alpn_protocols);
        config = rebuilt.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn;
        config
    };
    greet(server.address, with(only)).await.expect("it is on the list");
    let other = with("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    assert_eq!(refusal(server.address, other).await, AlertDescription::HandshakeFailure);
    let unknown = TlsOptions { cipher_suites: vec!["TLS_NONE".to_owned()], ..options };
    let error = Tls::load(unknown).unwrap_err().to_string();
    assert!(error.contains("'TLS_NONE'") && error.contains(only), "{error}");
    server.node.stop().await;
}

#[tokio::test]
async fn new_certificates_are_shown_without_a_restart_and_bad_ones_never() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    let first = authority.issue("server", 1);
    let server = Server::start(options(directory.path(), &first)).await;
    let shown = || greet(server.address, client(&authority, None, BOTH));
    let der = |pair: &Pair| CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
    assert_eq!(shown().await.unwrap(), der(&first).to_vec());

    // A certificate without its key: the old pair stays, and connections are served.
    let second = authority.issue("server", 2);
    std::fs::write(directory.path().join("cert.pem"), &second.certificate).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(shown().await.unwrap(), der(&first).to_vec());
    }
    second.write(directory.path());
    while shown().await.unwrap() != der(&second).to_vec() {
        assert!(begun.elapsed() < NOTICED_WITHIN, "the new certificate is not shown");
    }
    server.node.stop().await;
}

#[tokio::test]
async fn a_list_of_revoked_certificates_counts_as_soon_as_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let revoked = directory.path().join("revoked.pem");
    std::fs::write(&revoked, clients.revoke(&[1])).unwrap();
    let options = options(directory.path(), &servers.issue("server", 1));
    let options = only_for(&clients, directory.path(), options);
    let server = Server::start(TlsOptions { revoked: Some(revoked.clone()), ..options }).await;
    let pair = clients.issue("somebody", 9);
    let greet = || greet(server.address, client(&servers, Some(&pair), BOTH));
    greet().await.expect("it is not revoked yet");
    std::fs::write(&revoked, clients.revoke(&[1, 9])).unwrap();
    let begun = Instant::now();
    while greet().await.is_ok() {
        assert!(begun.elapsed() < NOTICED_WITHIN, "the new list does not count");
    }
    server.node.stop().await;
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_handshake_holds_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    let server = Server::start(options(directory.path(), &authority.issue("server", 1))).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let begun = Instant::now();
    greet(server.address, client(&authority, None, BOTH)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(silent);
    server.node.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    let (one, other) = (authority.issue("one", 1), authority.issue("other", 2));
    let good = options(directory.path(), &one);
    let refused = |options: TlsOptions| Tls::load(options).unwrap_err();
    let missing = TlsOptions { key: directory.path().join("nowhere"), ..good.clone() };
    let error = refused(missing);
    assert!(matches!(error, TlsError::Read { .. }), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "nothing").unwrap();
    let error = refused(TlsOptions { certificate: empty, ..good.clone() });
    assert!(matches!(error, TlsError::Content { what: "certificate", .. }), "{error}");
    std::fs::write(directory.path().join("key.pem"), &other.key).unwrap();
    let error = refused(good);
    assert!(matches!(error, TlsError::Pair { .. }), "{error}");
}

#[tokio::test]
async fn the_client_believes_its_authority_alone_and_comes_with_its_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let plain = options(directory.path(), &authority.issue("server", 1));
    let server = Server::start(only_for(&clients, directory.path(), plain)).await;
    let endpoints: Endpoints = format!("https://{}", server.address).parse().unwrap();
    let own = clients.issue("someone", 2);
    let tls = ClientTls {
        trusted: authority.pem.clone().into(),
        identity: Some((own.certificate.into(), own.key.into())),
        server_name: Some("localhost".into()),
        ..ClientTls::default()
    };
    let with = async |tls: ClientTls| connect_with(&endpoints, Settings { tls, ..quick() }).await;
    let keys = with(tls.clone()).await.unwrap();
    keys.txn(put(), Origin::default()).await.unwrap();
    for wrong in [
        ClientTls { identity: None, ..tls.clone() },
        ClientTls { trusted: clients.pem.clone().into(), ..tls.clone() },
        ClientTls { server_name: Some("another.host".into()), ..tls.clone() },
    ] {
        let refused = with(wrong.clone()).await.map(drop).unwrap_err();
        assert!(matches!(refused, Error::Unavailable { .. }), "{wrong:?}: {refused:?}");
    }
    drop(keys);
    server.node.stop().await;
}

#[tokio::test]
async fn the_client_reads_its_files_again_when_a_node_does_not_let_it_in() {
    let directory = tempfile::tempdir().unwrap();
    let own = tempfile::tempdir().unwrap();
    let (authority, clients, later) =
        (Authority::new("servers"), Authority::new("clients"), Authority::new("later"));
    let plain = options(directory.path(), &authority.issue("server", 1));
    let server = Server::start(only_for(&clients, directory.path(), plain.clone())).await;
    let address = server.address;
    let trusted = own.path().join("ca.pem");
    std::fs::write(&trusted, &authority.pem).unwrap();
    let (certificate, key) = clients.issue("someone", 2).write(own.path());
    let name = Some("localhost".to_owned());
    let tls = ClientTls::from_files(Some(&trusted), Some(&certificate), Some(&key), name).unwrap();
    let endpoints: Endpoints = format!("https://{address}").parse().unwrap();
    let keys = connect_with(&endpoints, Settings { tls, ..quick() }).await.unwrap();
    keys.txn(put(), Origin::default()).await.unwrap();
    server.node.stop().await;

    // Now others are let in, and the client's files are of them.
    let server = Server::start_at(address, only_for(&later, directory.path(), plain)).await;
    keys.status().await.unwrap_err();
    later.issue("someone", 3).write(own.path());
    let deadline = Instant::now() + NOTICED_WITHIN;
    while let Err(error) = keys.status().await {
        assert!(Instant::now() < deadline, "{error}");
    }
    drop(keys);
    server.node.stop().await;
}

/// The gateway's whole answer to a read without a token.
async fn ask_the_gateway(address: SocketAddr, mut config: ClientConfig) -> String {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("it is a name");
    let mut stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("it is let in");
    let request = "POST /v3/kv/range HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                   content-length: 14\r\n\r\n{\"key\":\"YQ==\"}";
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    answer
}

/// Enables authentication, with root and a user `alice` who may write below `a/`.
async fn enable_auth(channel: &Channel) -> Result<(), tonic::Status> {
    let mut auth = AuthClient::new(channel.clone());
    for (user, role) in [("root", "root"), ("alice", "writers")] {
        let (name, password) = (user.to_owned(), "unknown".to_owned());
        auth.user_add(pb::AuthUserAddRequest { name, password, ..Default::default() }).await?;
        auth.role_add(pb::AuthRoleAddRequest { name: role.to_owned() }).await?;
        let (user, role) = (user.to_owned(), role.to_owned());
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }).await?;
    }
    let perm = Some(authpb::Permission {
        perm_type: authpb::permission::Type::Write.into(),
        key: "a/".into(),
        range_end: "a0".into(),
    });
    let name = "writers".to_owned();
    auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest { name, perm }).await?;
    auth.auth_enable(pb::AuthEnableRequest {}).await?;
    Ok(())
}

#[tokio::test]
async fn the_name_in_a_certificate_is_its_user_where_the_listener_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let options = options(directory.path(), &servers.issue("server", 1));
    let options = only_for(&clients, directory.path(), options);
    let named = TlsOptions { name_is_user: true, ..options.clone() };
    let nobody = Err("etcdserver: user name is empty".to_owned());
    let denied = Err("etcdserver: permission denied".to_owned());
    for (options, own, other) in [(options, nobody.clone(), nobody), (named, Ok(()), denied)] {
        let is_user = options.name_is_user;
        let server = Server::start(options).await;
        let pair = clients.issue("alice", 3);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&servers.pem))
            .identity(Identity::from_pem(&pair.certificate, &pair.key))
            .domain_name("localhost");
        let channel = Channel::from_shared(format!("https://{}", server.address)).unwrap();
        let channel = channel.tls_config(tls).unwrap().connect().await.unwrap();
        enable_auth(&channel).await.unwrap();
        for (key, expected) in [("a/x", own), ("b", other)] {
            let put = PutRequest { key: key.into(), ..PutRequest::default() };
            let answer = KvClient::new(channel.clone()).put(put).await;
            assert_eq!(answer.map(drop).map_err(|status| status.message().to_owned()), expected);
        }
        // The gateway believes no name of a certificate, and says so to who might think it does.
        let answer = ask_the_gateway(server.address, client(&servers, Some(&pair), BOTH)).await;
        let expected = if is_user { "CommonName of client" } else { "user name is empty" };
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains(expected), "{answer}");
        server.node.stop().await;
    }
}
