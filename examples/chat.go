// Ask in four ways with Go's standard library alone: as a whole, in a stream, about a picture, and with a tool.
//
//	export OPENAI_BASE_URL=http://HOST:8000/v1 OPENAI_API_KEY=sk-...
//	go run chat.go ["What is the capital of Italy? Answer with one word."]
//
// Needs Go 1.19 or newer. MODEL chooses another model. OpenAI's own client for Go skips the comments of streams from
// 3.43.0 on.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	colour  = "What colour is the square? Answer with one word."
	weather = "How warm is it in Paris? Use the tool."
	// A red square on white, as a PNG.
	square = "data:image/png;base64," +
		"iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAZUlEQVR42u3aQQoAIAgAwYz+/2V7g0GUMHsPGvASGZk5OjdH8wAA" +
		"AAAAAAAAAADetconIu7eqPg+MUIAAAAAAAAAAAAAAAAAAAAAAAAAAAAA5er/A5/tFxkhAAAAAAAAAAAAgOM2t8AHfx74EyQAAAAA" +
		"SUVORK5CYII="
)

var client = &http.Client{Timeout: 2 * time.Minute}

type object map[string]any

type toolCall struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

type message struct {
	Role      string     `json:"role"`
	Content   string     `json:"content"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

// An answer, or a piece of one.
type reply struct {
	Choices []struct {
		Message      message `json:"message"`
		Delta        message `json:"delta"`
		FinishReason string  `json:"finish_reason"`
	} `json:"choices"`
	Error json.RawMessage `json:"error"`
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func ask(messages []any, more object) (io.ReadCloser, error) {
	body := object{
		"model":       setting("MODEL", "Qwen/Qwen3-VL-8B-Instruct"),
		"messages":    messages,
		"max_tokens":  256,
		"temperature": 0,
	}
	for name, value := range more {
		body[name] = value
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	url := strings.TrimRight(os.Getenv("OPENAI_BASE_URL"), "/") + "/chat/completions"
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+os.Getenv("OPENAI_API_KEY"))
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return nil, fmt.Errorf("%s %s", response.Status, text)
	}
	return response.Body, nil
}

func user(content any) object {
	return object{"role": "user", "content": content}
}

func whole(messages []any, more object) (message, error) {
	body, err := ask(messages, more)
	if err != nil {
		return message{}, err
	}
	defer body.Close()
	var found reply
	if err := json.NewDecoder(body).Decode(&found); err != nil {
		return message{}, err
	}
	if len(found.Choices) == 0 {
		return message{}, errors.New("the answer has no choice")
	}
	return found.Choices[0].Message, nil
}

// Server-sent events: lines that begin with "data: ", each with a piece of JSON; the last one is [DONE]. Lines that begin
// with a colon keep the connection open and mean nothing.
func streamed(question string) (string, error) {
	body, err := ask([]any{user(question)}, object{"stream": true})
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, finish, done := "", "", false
	lines := bufio.NewScanner(body)
	// A piece may be longer than the scanner's 64 KiB.
	lines.Buffer(nil, 16<<20)
	for !done && lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "data: ") {
			continue
		}
		data := strings.TrimPrefix(lines.Text(), "data: ")
		if data == "[DONE]" {
			done = true
			continue
		}
		var piece reply
		if err := json.Unmarshal([]byte(data), &piece); err != nil {
			return "", err
		}
		if piece.Error != nil {
			return "", fmt.Errorf("error in the stream: %s", piece.Error)
		}
		for _, choice := range piece.Choices {
			fmt.Print(choice.Delta.Content)
			text += choice.Delta.Content
			if choice.FinishReason != "" {
				finish = choice.FinishReason
			}
		}
	}
	fmt.Println()
	if err := lines.Err(); err != nil {
		return "", err
	}
	// A stream that was cut off has an answer, but no finish reason.
	if finish == "" || !done {
		return "", fmt.Errorf("the stream ended early (finish reason %q)", finish)
	}
	return text, nil
}

func seen() (string, error) {
	parts := []any{
		object{"type": "image_url", "image_url": object{"url": square}},
		object{"type": "text", "text": colour},
	}
	answer, err := whole([]any{user(parts)}, nil)
	return answer.Content, err
}

func temperature(arguments string) string {
	var given struct {
		City string `json:"city"`
	}
	// A model may give arguments that do not fit. It is shown what was wrong then.
	if err := json.Unmarshal([]byte(arguments), &given); err != nil || given.City == "" {
		return "error: city is missing"
	}
	return "21 degrees Celsius in " + given.City
}

func withATool() (string, error) {
	function := object{
		"name":        "temperature",
		"description": "The temperature in a city.",
		"parameters": object{
			"type":       "object",
			"properties": object{"city": object{"type": "string", "enum": []string{"Paris", "Rome"}}},
			"required":   []string{"city"},
		},
	}
	messages := []any{user(weather)}
	// Named, the tool has to be called; with "auto" the model decides.
	answer, err := whole(messages, object{
		"tools":       []any{object{"type": "function", "function": function}},
		"tool_choice": object{"type": "function", "function": object{"name": "temperature"}},
	})
	if err != nil || len(answer.ToolCalls) == 0 {
		return "no call; the model says: " + answer.Content, err
	}
	messages = append(messages, answer)
	for _, call := range answer.ToolCalls {
		result := temperature(call.Function.Arguments)
		messages = append(messages, object{"role": "tool", "tool_call_id": call.ID, "content": result})
	}
	last, err := whole(messages, nil)
	return fmt.Sprintf("%d call(s), then: %s", len(answer.ToolCalls), last.Content), err
}

func run() error {
	if os.Getenv("OPENAI_BASE_URL") == "" || os.Getenv("OPENAI_API_KEY") == "" {
		return errors.New("set OPENAI_BASE_URL and OPENAI_API_KEY")
	}
	question := strings.Join(os.Args[1:], " ")
	if question == "" {
		question = "What is the capital of France? Answer with one word."
	}
	for _, way := range []struct {
		name string
		ask  func() (string, error)
	}{
		{"whole", func() (string, error) {
			answer, err := whole([]any{user(question)}, nil)
			return answer.Content, err
		}},
		{"streamed", func() (string, error) { return streamed(question) }},
		{"a picture", seen},
		{"a tool", withATool},
	} {
		answer, err := way.ask()
		if err == nil && answer == "" {
			err = errors.New("the model answered nothing")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		fmt.Printf("%s: %s\n", way.name, answer)
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "chat.go:", err)
		os.Exit(1)
	}
}
