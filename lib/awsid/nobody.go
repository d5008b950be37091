package awsid

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Nobody is that there are no credentials.
type Nobody struct {
	Err    error  // the SDK's
	Hint   string // what to set
	Exists bool   // whoever gives them is known to exist; a metadata service is not
}

func (n *Nobody) Unwrap() error { return n.Err }

// Error is short: the SDK wraps its errors many times.
func (n *Nobody) Error() string {
	code, message, status := n.said()
	var request *url.Error
	switch {
	case status == 0 && errors.As(n.Err, &request):
		return "no credentials: " + request.Err.Error()
	case code == "" || status == 0:
		return "no credentials: " + innermost(n.Err).Error()
	}
	return fmt.Sprintf("no credentials: %s: %s (%d)", code, message, status)
}

// Passes reports whether there may be credentials later.
func (n *Nobody) Passes() bool {
	_, _, status := n.said()
	var request *url.Error
	return status == http.StatusTooManyRequests || status >= 500 ||
		status == 0 && n.Exists && errors.As(n.Err, &request)
}

func (n *Nobody) said() (code, message string, status int) {
	var response *smithyhttp.ResponseError
	if errors.As(n.Err, &response) && response.Response != nil {
		status = response.Response.StatusCode
	}
	var api smithy.APIError
	if errors.As(n.Err, &api) {
		code, message = api.ErrorCode(), api.ErrorMessage()
	}
	return code, message, status
}

func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
