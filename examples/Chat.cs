// Ask in four ways with C#'s own HTTP client: as a whole, in a stream, about a picture, and with a tool.
//
//   export OPENAI_BASE_URL=http://HOST:8000/v1 OPENAI_API_KEY=sk-...
//   dotnet new console --output chat && cp Chat.cs chat/Program.cs && cd chat
//   dotnet add package Newtonsoft.Json && dotnet run -- "What is the capital of Italy? Answer with one word."
//
// Or with Mono: mcs -r:System.Net.Http.dll -r:Newtonsoft.Json.dll Chat.cs && mono Chat.exe. MODEL chooses another model.

using System;
using System.IO;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Text;
using System.Threading.Tasks;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;

public static class Chat
{
    const string Colour = "What colour is the square? Answer with one word.";
    const string Weather = "How warm is it in Paris? Use the tool.";
    // A red square on white, as a PNG.
    const string Square =
        "data:image/png;base64,"
        + "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAZUlEQVR42u3aQQoAIAgAwYz+/2V7g0GUMHsPGvASGZk5OjdH8wAA"
        + "AAAAAAAAAADetconIu7eqPg+MUIAAAAAAAAAAAAAAAAAAAAAAAAAAAAA5er/A5/tFxkhAAAAAAAAAAAAgOM2t8AHfx74EyQAAAAA"
        + "SUVORK5CYII=";

    static readonly HttpClient Client = new HttpClient { Timeout = TimeSpan.FromMinutes(2) };
    static readonly string Base = Environment.GetEnvironmentVariable("OPENAI_BASE_URL");
    static readonly string Key = Environment.GetEnvironmentVariable("OPENAI_API_KEY");

    static async Task<HttpResponseMessage> Ask(JArray messages, JObject more = null)
    {
        var model = Environment.GetEnvironmentVariable("MODEL");
        var body = new JObject
        {
            ["model"] = string.IsNullOrEmpty(model) ? "Qwen/Qwen3-VL-8B-Instruct" : model,
            ["messages"] = messages,
            ["max_tokens"] = 256,
            ["temperature"] = 0,
        };
        foreach (var option in more ?? new JObject())
        {
            body[option.Key] = option.Value;
        }
        var request = new HttpRequestMessage(HttpMethod.Post, Base.TrimEnd('/') + "/chat/completions")
        {
            Content = new StringContent(body.ToString(Formatting.None), Encoding.UTF8, "application/json"),
        };
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", Key);
        // As soon as the headers are there: a stream is read while it comes.
        var response = await Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        if (!response.IsSuccessStatusCode)
        {
            throw new IOException((int)response.StatusCode + " " + await response.Content.ReadAsStringAsync());
        }
        return response;
    }

    static JObject User(JToken content)
    {
        return new JObject { ["role"] = "user", ["content"] = content };
    }

    static async Task<JToken> Whole(JArray messages, JObject more = null)
    {
        using (var response = await Ask(messages, more))
        {
            return JObject.Parse(await response.Content.ReadAsStringAsync())["choices"][0]["message"];
        }
    }

    // Server-sent events: lines that begin with "data: ", each with a piece of JSON; the last one is [DONE]. Lines that
    // begin with a colon keep the connection open and mean nothing.
    static async Task<string> Streamed(string question)
    {
        var text = new StringBuilder();
        string finish = null;
        var done = false;
        using (var response = await Ask(new JArray(User(question)), new JObject { ["stream"] = true }))
        using (var lines = new StreamReader(await response.Content.ReadAsStreamAsync(), Encoding.UTF8))
        {
            string line;
            while (!done && (line = await lines.ReadLineAsync()) != null)
            {
                if (!line.StartsWith("data: ", StringComparison.Ordinal))
                {
                    continue;
                }
                if (line == "data: [DONE]")
                {
                    done = true;
                    continue;
                }
                var piece = JObject.Parse(line.Substring("data: ".Length));
                if (piece["error"] != null)
                {
                    throw new IOException("error in the stream: " + piece["error"]);
                }
                foreach (var choice in piece["choices"])
                {
                    var written = (string)choice["delta"]["content"];
                    Console.Write(written);
                    text.Append(written);
                    finish = (string)choice["finish_reason"] ?? finish;
                }
            }
        }
        Console.WriteLine();
        // A stream that was cut off has an answer, but no finish reason.
        if (finish == null || !done)
        {
            throw new IOException("the stream ended early (finish reason " + finish + ")");
        }
        return text.ToString();
    }

    static async Task<string> Seen()
    {
        var picture = new JObject { ["type"] = "image_url", ["image_url"] = new JObject { ["url"] = Square } };
        var question = new JObject { ["type"] = "text", ["text"] = Colour };
        return (string)(await Whole(new JArray(User(new JArray(picture, question)))))["content"];
    }

    static string Temperature(string arguments)
    {
        // A model may give arguments that do not fit. It is shown what was wrong then.
        var city = (string)JObject.Parse(arguments)["city"];
        return city == null ? "error: city is missing" : "21 degrees Celsius in " + city;
    }

    static async Task<string> WithATool()
    {
        var function = JObject.Parse(@"{
            'name': 'temperature',
            'description': 'The temperature in a city.',
            'parameters': {
                'type': 'object',
                'properties': {'city': {'type': 'string', 'enum': ['Paris', 'Rome']}},
                'required': ['city']
            }
        }");
        var messages = new JArray(User(Weather));
        // Named, the tool has to be called; with "auto" the model decides.
        var answer = await Whole(messages, new JObject
        {
            ["tools"] = new JArray(new JObject { ["type"] = "function", ["function"] = function }),
            ["tool_choice"] = JObject.Parse("{'type': 'function', 'function': {'name': 'temperature'}}"),
        });
        var calls = answer["tool_calls"] as JArray;
        if (calls == null || calls.Count == 0)
        {
            return "no call; the model says: " + answer["content"];
        }
        messages.Add(answer);
        foreach (var call in calls)
        {
            messages.Add(new JObject
            {
                ["role"] = "tool",
                ["tool_call_id"] = call["id"],
                ["content"] = Temperature((string)call["function"]["arguments"]),
            });
        }
        return calls.Count + " call(s), then: " + (await Whole(messages))["content"];
    }

    static async Task Show(string name, Func<Task<string>> ask)
    {
        var answer = await ask();
        if (string.IsNullOrEmpty(answer))
        {
            throw new IOException(name + ": the model answered nothing");
        }
        Console.WriteLine(name + ": " + answer);
    }

    static async Task<int> Run(string[] words)
    {
        if (string.IsNullOrEmpty(Base) || string.IsNullOrEmpty(Key))
        {
            Console.Error.WriteLine("Chat.cs: set OPENAI_BASE_URL and OPENAI_API_KEY");
            return 1;
        }
        var question = words.Length > 0
            ? string.Join(" ", words)
            : "What is the capital of France? Answer with one word.";
        try
        {
            await Show("whole", async () => (string)(await Whole(new JArray(User(question))))["content"]);
            await Show("streamed", () => Streamed(question));
            await Show("a picture", Seen);
            await Show("a tool", WithATool);
            return 0;
        }
        catch (Exception error) when (error is IOException || error is HttpRequestException || error is JsonException)
        {
            Console.Error.WriteLine("Chat.cs: " + error.Message);
            return 1;
        }
    }

    public static int Main(string[] words)
    {
        return Run(words).GetAwaiter().GetResult();
    }
}
