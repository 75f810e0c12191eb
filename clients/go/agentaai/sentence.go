package agentaai

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

var tryAgain = regexp.MustCompile(`(?i)\b(try again)(?: later\b|([.;,]|$))`)

// sentence returns the message, and what it leaves out of the details: violations and the time to wait. The rule is that of
// the clients of all languages, tests/conformance/sentences.json.
func sentence(message string, broken []FieldViolation, retryDelay time.Duration) string {
	untold := untoldOf(message, broken)
	if retryDelay > 0 && !strings.Contains(strings.ToLower(message), "try again in") {
		when := fmt.Sprintf("in %.0f s", math.Ceil(retryDelay.Seconds()))
		if at := tryAgain.FindStringSubmatchIndex(message); at != nil {
			said := tryAgain.ExpandString(nil, "${1} "+when+"${2}", message, at)
			message = message[:at[0]] + string(said) + message[at[1]:]
		} else {
			untold = append(untold, "try again "+when)
		}
	}
	said := message
	for _, each := range untold {
		said = strings.TrimRight(said, ".") + "; " + each
	}
	return said
}

// untoldOf returns the violations that the message leaves out. What it says of one isn't said of the next.
func untoldOf(message string, broken []FieldViolation) []string {
	var untold []string
	for _, each := range broken {
		rest, named := cut(message, indexOfName(message, each.Field), len(each.Field))
		description := strings.TrimRight(each.Description, ".")
		at := -1
		if description != "" {
			at = strings.Index(rest, description)
		}
		rest, described := cut(rest, at, len(description))
		message = rest
		switch {
		case named || described:
		case each.Field == "":
			untold = append(untold, each.Description)
		default:
			untold = append(untold, each.Field+": "+each.Description)
		}
	}
	return untold
}

// cut puts a blank in the place of a part of text, and returns whether there is one.
func cut(text string, at, length int) (string, bool) {
	if at < 0 {
		return text, false
	}
	return text[:at] + " " + text[at+length:], true
}

// indexOfName finds a whole name: "arguments.text" isn't in "arguments.text_format", and not in "arguments.text[3]" either.
func indexOfName(text, name string) int {
	for from := 0; name != ""; {
		at := strings.Index(text[from:], name)
		if at < 0 {
			break
		}
		at += from
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		rest := text[at+len(name):]
		after, size := utf8.DecodeRuneInString(rest)
		member, _ := utf8.DecodeRuneInString(rest[size:])
		if !isWord(before) && before != '.' && !isWord(after) && after != '[' && (after != '.' || !isWord(member)) {
			return at
		}
		from = at + 1
	}
	return -1
}

func isWord(char rune) bool { return char == '_' || unicode.IsLetter(char) || unicode.IsNumber(char) }
