// SPDX-License-Identifier: Apache-2.0
package web;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;

/** Serves the unpacked web archive's page, with the architecture filled in. */
public final class Server {
    private Server() {
    }

    public static void main(String[] arguments) throws IOException {
        if (arguments.length == 1 && arguments[0].equals("--page")) {
            System.out.print(page());
            return;
        }
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.createContext("/", Server::answer);
        server.start();
    }

    private static void answer(HttpExchange exchange) throws IOException {
        byte[] body = page().getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "text/html; charset=utf-8");
        exchange.sendResponseHeaders(200, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    private static String page() throws IOException {
        try (InputStream page = Server.class.getResourceAsStream("/index.html")) {
            String text = new String(page.readAllBytes(), StandardCharsets.UTF_8);
            return text.replace("@ARCHITECTURE@", System.getProperty("os.arch"));
        }
    }
}
