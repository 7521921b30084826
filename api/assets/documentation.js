// Keys that people type stay in the memory of the page, and nothing is sent to a validator.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#documentation",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
});
