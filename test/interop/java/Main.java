import com.google.gson.Gson;
import com.google.protobuf.Any;
import io.envoyproxy.envoy.config.core.v3.Node;
import io.envoyproxy.envoy.extensions.transport_sockets.tls.v3.Secret;
import io.envoyproxy.envoy.service.discovery.v3.DiscoveryRequest;
import io.envoyproxy.envoy.service.discovery.v3.DiscoveryResponse;
import io.envoyproxy.envoy.service.secret.v3.SecretDiscoveryServiceGrpc;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.grpc.stub.StreamObserver;
import io.spiffe.bundle.x509bundle.X509Bundle;
import io.spiffe.spiffeid.TrustDomain;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509SvidValidator;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Context;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;

/** java-spiffe as client of a Workload API, and grpc-java as client of SDS. Prints one JSON object a line. */
public final class Main {
  private static final String SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
  private static final Gson JSON = new Gson();

  public static void main(String[] args) throws Exception {
    switch (args[0]) {
      case "fetch" -> fetch(args[1], args[2]);
      case "watch" -> watch(args[1]);
      case "sds" -> sds(args[1], List.of(args).subList(2, args.length));
      default -> throw new IllegalArgumentException(args[0]);
    }
  }

  private static synchronized void say(Map<String, ?> what) {
    System.out.println(JSON.toJson(what));
  }

  private static WorkloadApiClient client(String endpoint) throws Exception {
    return DefaultWorkloadApiClient.newClient(
        DefaultWorkloadApiClient.ClientOptions.builder().spiffeSocketPath(endpoint).build());
  }

  private static void fetch(String endpoint, String audience) throws Exception {
    try (WorkloadApiClient client = client(endpoint)) {
      X509Context x509 = client.fetchX509Context();
      // Throws if it is not good.
      X509SvidValidator.verifyChain(x509.getDefaultSvid().getChain(), x509.getX509BundleSet());
      JwtSvid jwt = client.fetchJwtSvid(audience);
      JwtSvid validated = client.validateJwtSvid(jwt.getToken(), audience);
      say(
          Map.of(
              "id", x509.getDefaultSvid().getSpiffeId().toString(),
              "bundles", authorities(x509),
              "x509Bundles", names(client.fetchX509Bundles().getBundles()),
              "jwtBundles", names(client.fetchJwtBundles().getBundles()),
              "jwt", jwt.getSpiffeId().toString(),
              "validated", validated.getSpiffeId().toString()));
    }
  }

  private static void watch(String endpoint) throws Exception {
    WorkloadApiClient client = client(endpoint);
    client.watchX509Context(
        new Watcher<>() {
          @Override
          public void onUpdate(X509Context x509) {
            say(
                Map.of(
                    "serial", x509.getDefaultSvid().getLeaf().getSerialNumber().toString(16),
                    "bundles", authorities(x509)));
          }

          @Override
          public void onError(Throwable error) {
            say(Map.of("watchError", error.toString()));
          }
        });
    new CountDownLatch(1).await();
  }

  private static Map<String, Integer> authorities(X509Context x509) {
    Map<String, Integer> counts = new TreeMap<>();
    for (Map.Entry<TrustDomain, X509Bundle> each : x509.getX509BundleSet().getBundles().entrySet())
      counts.put(each.getKey().toString(), each.getValue().getX509Authorities().size());
    return counts;
  }

  private static List<String> names(Map<TrustDomain, ?> bundles) {
    return bundles.keySet().stream().map(TrustDomain::toString).sorted().toList();
  }

  /** Subscribes, and accepts whatever comes. */
  private static void sds(String path, List<String> names) throws Exception {
    var channel =
        NettyChannelBuilder.forAddress(new DomainSocketAddress(path))
            .eventLoopGroup(new EpollEventLoopGroup(1))
            .channelType(EpollDomainSocketChannel.class)
            .usePlaintext()
            .build();
    CountDownLatch ended = new CountDownLatch(1);
    var stream = new StreamObserver[1];
    DiscoveryRequest first =
        DiscoveryRequest.newBuilder()
            .setNode(Node.newBuilder().setId("java").setCluster("java"))
            .setTypeUrl(SECRET_TYPE)
            .addAllResourceNames(names)
            .build();
    StreamObserver<DiscoveryRequest> requests =
        SecretDiscoveryServiceGrpc.newStub(channel)
            .streamSecrets(
                new StreamObserver<>() {
                  @Override
                  public void onNext(DiscoveryResponse response) {
                    acknowledge(stream[0], first, response);
                    say(Map.of("version", response.getVersionInfo(), "secrets", secrets(response)));
                  }

                  @Override
                  public void onError(Throwable error) {
                    say(Map.of("error", error.toString()));
                    ended.countDown();
                  }

                  @Override
                  public void onCompleted() {
                    say(Map.of("error", "the stream ended"));
                    ended.countDown();
                  }
                });
    stream[0] = requests;
    requests.onNext(first);
    ended.await();
    channel.shutdownNow();
  }

  @SuppressWarnings("unchecked")
  private static void acknowledge(StreamObserver<?> stream, DiscoveryRequest first, DiscoveryResponse response) {
    ((StreamObserver<DiscoveryRequest>) stream)
        .onNext(
            first.toBuilder().setVersionInfo(response.getVersionInfo()).setResponseNonce(response.getNonce()).build());
  }

  private static List<String> secrets(DiscoveryResponse response) {
    List<String> found = new ArrayList<>();
    for (Any resource : response.getResourcesList()) {
      try {
        Secret secret = resource.unpack(Secret.class);
        found.add(secret.getName() + " " + secret.getTypeCase());
      } catch (com.google.protobuf.InvalidProtocolBufferException problem) {
        found.add(problem.toString());
      }
    }
    return found;
  }
}
