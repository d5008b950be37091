package awsid

import (
	"regexp"
	"strings"
	"unicode"

	"walg/lib/fault"
)

// Read reads the settings through get, which returns "" for what is not set.
// WAL-G looks for each with WALG_ and WALE_ before it too. What does not make
// sense is status 64.
func Read(get func(name string) string) (Settings, error) {
	var broken string
	text := func(names ...string) string {
		for _, name := range names {
			for _, name := range []string{name, "WALG_" + name, "WALE_" + name} {
				value := get(name)
				if strings.ContainsFunc(value, unicode.IsControl) {
					broken = name
				}
				if value != "" {
					return value
				}
			}
		}
		return ""
	}
	s := Settings{
		Key:             text("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"),
		Secret:          text("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"),
		Token:           text("AWS_SESSION_TOKEN"),
		Profile:         text("AWS_PROFILE"),
		CredentialsFile: text("AWS_SHARED_CREDENTIALS_FILE"),
		ConfigFile:      text("AWS_CONFIG_FILE"),
		Role:            text("AWS_ROLE_ARN"),
		RoleSession:     text("AWS_ROLE_SESSION_NAME"),
		WebIdentity:     text("AWS_WEB_IDENTITY_TOKEN_FILE"),
		Metadata:        text("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
		Region:          text("AWS_REGION", "AWS_DEFAULT_REGION"),
	}
	switch {
	case broken != "": // it would end up in a header
		return s, fault.New(fault.Usage, "setting %s=...: want no line end or other control character in it", broken)
	case s.Key == "" && s.Secret != "":
		return s, fault.New(fault.Usage, "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not")
	case s.Key != "" && s.Secret == "":
		return s, fault.New(fault.Usage, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not")
	case s.RoleSession != "" && !regexp.MustCompile(`^[\w+=,.@-]{2,64}$`).MatchString(s.RoleSession):
		return s, fault.New(fault.Usage, "setting AWS_ROLE_SESSION_NAME=%s: want 2 to 64 of letters, digits and _+=,.@-", s.RoleSession)
	}
	return s, nil
}
