// Ask in four ways with Java's own HTTP client: as a whole, in a stream, about a picture, and with a tool.
//
//   export OPENAI_BASE_URL=http://HOST:8000/v1 OPENAI_API_KEY=sk-...
//   java -cp gson.jar Chat.java ["What is the capital of Italy? Answer with one word."]
//
// Needs Java 17 or newer, and Gson for JSON (com.google.code.gson:gson, or the package libgoogle-gson-java). MODEL chooses
// another model.

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Scanner;

public class Chat {
    static final String COLOUR = "What colour is the square? Answer with one word.";
    static final String WEATHER = "How warm is it in Paris? Use the tool.";
    // A red square on white, as a PNG.
    static final String SQUARE =
        "data:image/png;base64,"
        + "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAZUlEQVR42u3aQQoAIAgAwYz+/2V7g0GUMHsPGvASGZk5OjdH8wAA"
        + "AAAAAAAAAADetconIu7eqPg+MUIAAAAAAAAAAAAAAAAAAAAAAAAAAAAA5er/A5/tFxkhAAAAAAAAAAAAgOM2t8AHfx74EyQAAAAA"
        + "SUVORK5CYII=";

    static final Gson JSON = new Gson();
    // HTTP/1.1: over plain HTTP this client otherwise asks each server for an upgrade first.
    static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    // Classes, because Gson reads records from 2.10 on.
    static class Function {
        String name;
        String arguments;
    }

    static class ToolCall {
        String id;
        String type;
        Function function;
    }

    static class Message {
        String role;
        String content;
        List<ToolCall> tool_calls;
    }

    static class Choice {
        Message message;
        Message delta;
        String finish_reason;
    }

    // An answer, or a piece of one.
    static class Reply {
        List<Choice> choices;
        JsonObject error;
    }

    static String setting(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    static InputStream ask(List<Object> messages, Map<String, Object> more) throws IOException, InterruptedException {
        Map<String, Object> body = new HashMap<>(more);
        body.put("model", setting("MODEL", "Qwen/Qwen3-VL-8B-Instruct"));
        body.put("messages", messages);
        body.put("max_tokens", 256);
        body.put("temperature", 0);
        String base = System.getenv("OPENAI_BASE_URL").replaceAll("/+$", "");
        HttpRequest request = HttpRequest.newBuilder(URI.create(base + "/chat/completions"))
            .timeout(Duration.ofMinutes(2))
            .header("Content-Type", "application/json")
            .header("Authorization", "Bearer " + System.getenv("OPENAI_API_KEY"))
            .POST(HttpRequest.BodyPublishers.ofString(JSON.toJson(body)))
            .build();
        HttpResponse<InputStream> response = CLIENT.send(request, BodyHandlers.ofInputStream());
        if (response.statusCode() != 200) {
            String text = new String(response.body().readAllBytes(), StandardCharsets.UTF_8);
            throw new IOException(response.statusCode() + " " + text);
        }
        return response.body();
    }

    static Map<String, Object> user(Object content) {
        return Map.of("role", "user", "content", content);
    }

    static Message whole(List<Object> messages, Map<String, Object> more) throws IOException, InterruptedException {
        try (InputStream body = ask(messages, more)) {
            Reply reply = JSON.fromJson(new String(body.readAllBytes(), StandardCharsets.UTF_8), Reply.class);
            return reply.choices.get(0).message;
        }
    }

    // Server-sent events: lines that begin with "data: ", each with a piece of JSON; the last one is [DONE]. Lines that
    // begin with a colon keep the connection open and mean nothing.
    static String streamed(String question) throws IOException, InterruptedException {
        StringBuilder text = new StringBuilder();
        String finish = null;
        boolean done = false;
        try (Scanner lines = new Scanner(ask(List.of(user(question)), Map.of("stream", true)), StandardCharsets.UTF_8)) {
            while (!done && lines.hasNextLine()) {
                String line = lines.nextLine();
                if (!line.startsWith("data: ")) {
                    continue;
                }
                if (line.equals("data: [DONE]")) {
                    done = true;
                    continue;
                }
                Reply piece = JSON.fromJson(line.substring("data: ".length()), Reply.class);
                if (piece.error != null) {
                    throw new IOException("error in the stream: " + piece.error);
                }
                for (Choice choice : piece.choices) {
                    if (choice.delta != null && choice.delta.content != null) {
                        System.out.print(choice.delta.content);
                        text.append(choice.delta.content);
                    }
                    finish = choice.finish_reason != null ? choice.finish_reason : finish;
                }
            }
            if (lines.ioException() != null) {
                throw lines.ioException();
            }
        }
        System.out.println();
        // A stream that was cut off has an answer, but no finish reason.
        if (finish == null || !done) {
            throw new IOException("the stream ended early (finish reason " + finish + ")");
        }
        return text.toString();
    }

    static String seen() throws IOException, InterruptedException {
        Object picture = Map.of("type", "image_url", "image_url", Map.of("url", SQUARE));
        Object question = Map.of("type", "text", "text", COLOUR);
        return whole(List.of(user(List.of(picture, question))), Map.of()).content;
    }

    static String temperature(String arguments) {
        JsonObject given = JSON.fromJson(arguments, JsonObject.class);
        // A model may give arguments that do not fit. It is shown what was wrong then.
        return given.has("city")
            ? "21 degrees Celsius in " + given.get("city").getAsString()
            : "error: city is missing";
    }

    static String withATool() throws IOException, InterruptedException {
        Map<String, Object> parameters = Map.of(
            "type", "object",
            "properties", Map.of("city", Map.of("type", "string", "enum", List.of("Paris", "Rome"))),
            "required", List.of("city"));
        Map<String, Object> function = Map.of(
            "name", "temperature", "description", "The temperature in a city.", "parameters", parameters);
        List<Object> messages = new ArrayList<>(List.of(user(WEATHER)));
        // Named, the tool has to be called; with "auto" the model decides.
        Message answer = whole(messages, Map.of(
            "tools", List.of(Map.of("type", "function", "function", function)),
            "tool_choice", Map.of("type", "function", "function", Map.of("name", "temperature"))));
        if (answer.tool_calls == null || answer.tool_calls.isEmpty()) {
            return "no call; the model says: " + answer.content;
        }
        messages.add(answer);
        for (ToolCall call : answer.tool_calls) {
            String result = temperature(call.function.arguments);
            messages.add(Map.of("role", "tool", "tool_call_id", call.id, "content", result));
        }
        return answer.tool_calls.size() + " call(s), then: " + whole(messages, Map.of()).content;
    }

    interface Way {
        String ask() throws IOException, InterruptedException;
    }

    static void show(String name, Way way) throws IOException, InterruptedException {
        String answer = way.ask();
        if (answer == null || answer.isEmpty()) {
            throw new IOException(name + ": the model answered nothing");
        }
        System.out.println(name + ": " + answer);
    }

    public static void main(String[] words) throws InterruptedException {
        if (System.getenv("OPENAI_BASE_URL") == null || System.getenv("OPENAI_API_KEY") == null) {
            System.err.println("Chat.java: set OPENAI_BASE_URL and OPENAI_API_KEY");
            System.exit(1);
        }
        String question =
            words.length > 0 ? String.join(" ", words) : "What is the capital of France? Answer with one word.";
        try {
            show("whole", () -> whole(List.of(user(question)), Map.of()).content);
            show("streamed", () -> streamed(question));
            show("a picture", Chat::seen);
            show("a tool", Chat::withATool);
        } catch (IOException | RuntimeException error) {
            System.err.println("Chat.java: " + error);
            System.exit(1);
        }
    }
}
