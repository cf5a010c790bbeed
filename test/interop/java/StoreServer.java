import com.sun.net.httpserver.HttpServer;
import java.io.FileInputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.util.concurrent.Executors;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * A TLS server that presents the key of a key store and lets nobody in whom its trust store does not know: DIRECTORY PASSWORD-FILE. It says hello, and
 * reads both stores again when it is asked over plain HTTP. Prints both ports.
 */
public class StoreServer {
  /** Whole: a handshake that asked for the chain of one store and the key of the next would fail. */
  static volatile SSLContext context;

  public static void main(String[] args) throws Exception {
    Path directory = Path.of(args[0]);
    char[] password = Files.readString(Path.of(args[1])).strip().toCharArray();
    context = load(directory, password);
    ServerSocket server = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());

    HttpServer reload = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
    reload.createContext("/reload", exchange -> {
      int status = 204;
      try {
        context = load(directory, password);
      } catch (Exception failure) {
        failure.printStackTrace();
        status = 500;
      }
      exchange.sendResponseHeaders(status, -1);
      exchange.close();
    });
    reload.start();
    System.out.println("ports " + server.getLocalPort() + " " + reload.getAddress().getPort());

    var pool = Executors.newCachedThreadPool();
    while (true) {
      Socket raw = server.accept();
      pool.submit(() -> {
        try (SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(raw, null, true)) {
          socket.setUseClientMode(false);
          socket.setNeedClientAuth(true);
          socket.getOutputStream().write("hello".getBytes());
        } catch (Exception failure) {
          System.err.println(failure);
        }
      });
    }
  }

  static SSLContext load(Path directory, char[] password) throws Exception {
    KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
    keys.init(open(directory.resolve("svid.p12"), password), password);
    TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
    trust.init(open(directory.resolve("svid_bundle.p12"), password));
    SSLContext loaded = SSLContext.getInstance("TLSv1.3");
    loaded.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
    return loaded;
  }

  static KeyStore open(Path file, char[] password) throws Exception {
    KeyStore store = KeyStore.getInstance("PKCS12");
    try (FileInputStream in = new FileInputStream(file.toFile())) {
      store.load(in, password);
    }
    return store;
  }
}
