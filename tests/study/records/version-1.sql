BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'toy');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MINIMIZE',1,1);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_system_attributes" VALUES(1,1,'study:metric_names','["accuracy", "trainable_params"]');
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'record','{"version": 1, "id": "79cf4d198c574151b50d087341b52d83"}');
INSERT INTO "study_user_attributes" VALUES(2,1,'process:fcda7591d7664ca08c06d42260b99c91','{"host": "elsewhere", "boot": "", "namespace": "pid:[4026531836]", "pid": 22416, "started": 3319871.0, "id": "fcda7591d7664ca08c06d42260b99c91", "kills": 12, "beat": 0}');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,2,'0.lora.r@g1',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4, 8]}}');
INSERT INTO "trial_params" VALUES(2,2,'1.adapter.size@g1',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 4, 16]}}');
INSERT INTO "trial_params" VALUES(3,2,'0.lora.r@g2',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4, 8]}}');
INSERT INTO "trial_params" VALUES(4,2,'1.adapter.size@g2',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 4, 16]}}');
INSERT INTO "trial_params" VALUES(5,2,'train.learning_rate',2.1856865439702035693e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(6,3,'0.lora.r@g1',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4, 8]}}');
INSERT INTO "trial_params" VALUES(7,3,'1.adapter.size@g1',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 4, 16]}}');
INSERT INTO "trial_params" VALUES(8,3,'0.lora.r@g2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4, 8]}}');
INSERT INTO "trial_params" VALUES(9,3,'1.adapter.size@g2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 4, 16]}}');
INSERT INTO "trial_params" VALUES(10,3,'train.learning_rate',4.15265827197590451508e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(11,4,'0.lora.r@g1',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4, 8]}}');
INSERT INTO "trial_params" VALUES(12,4,'1.adapter.size@g1',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 4, 16]}}');
INSERT INTO "trial_params" VALUES(13,4,'0.lora.r@g2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4, 8]}}');
INSERT INTO "trial_params" VALUES(14,4,'1.adapter.size@g2',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 4, 16]}}');
INSERT INTO "trial_params" VALUES(15,4,'train.learning_rate',3.70328757248093764012e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(16,5,'0.lora.r@g1',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4, 8]}}');
INSERT INTO "trial_params" VALUES(17,5,'1.adapter.size@g1',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 4, 16]}}');
INSERT INTO "trial_params" VALUES(18,5,'0.lora.r@g2',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4, 8]}}');
INSERT INTO "trial_params" VALUES(19,5,'1.adapter.size@g2',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 4, 16]}}');
INSERT INTO "trial_params" VALUES(20,5,'train.learning_rate',1.41140330524035890677e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.01, "log": true}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{}');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'config','{"place": [], "train": {"learning_rate": 0.001}}');
INSERT INTO "trial_user_attributes" VALUES(2,1,'key','"3947b05cd20868c1"');
INSERT INTO "trial_user_attributes" VALUES(3,1,'baseline','"head-only"');
INSERT INTO "trial_user_attributes" VALUES(4,1,'owner','{"host": "elsewhere", "boot": "", "namespace": "pid:[4026531836]", "pid": 22416, "started": 3319871.0, "id": "fcda7591d7664ca08c06d42260b99c91", "kills": 12}');
INSERT INTO "trial_user_attributes" VALUES(5,1,'known','{"trainable_params": 0}');
INSERT INTO "trial_user_attributes" VALUES(6,1,'reports','[{"step": 10, "fidelity": 1.0, "metrics": {"accuracy": 0.6321205588285577, "validation_loss": 0.36787944117144233}, "member": 0}, {"step": 30, "fidelity": 3.0, "metrics": {"accuracy": 0.950212931632136, "validation_loss": 0.04978706836786395}, "member": 0}]');
INSERT INTO "trial_user_attributes" VALUES(7,1,'folder','"out/trials/79cf4d19/0"');
INSERT INTO "trial_user_attributes" VALUES(8,1,'seconds','0.036188370002491865');
INSERT INTO "trial_user_attributes" VALUES(9,2,'owner','{"host": "elsewhere", "boot": "", "namespace": "pid:[4026531836]", "pid": 22416, "started": 3319871.0, "id": "fcda7591d7664ca08c06d42260b99c91", "kills": 12}');
INSERT INTO "trial_user_attributes" VALUES(10,2,'config','{"place": [{"method": "adapter", "activation": "relu", "at": "ffn", "bias": true, "form": "sequential", "scale": 1.0, "size": 16, "where": [0, 1]}, {"method": "adapter", "activation": "relu", "at": "ffn", "bias": true, "form": "sequential", "scale": 1.0, "size": 4, "where": [2, 3]}, {"method": "lora", "lora_alpha": 4.0, "lora_dropout": 0.0, "r": 2, "targets": ["q", "v"], "where": [2, 3]}, {"method": "lora", "lora_alpha": 8.0, "lora_dropout": 0.0, "r": 4, "targets": ["q", "v"], "where": [0, 1]}], "train": {"learning_rate": 0.0021856865439702036}}');
INSERT INTO "trial_user_attributes" VALUES(11,2,'key','"992951f0fec98869"');
INSERT INTO "trial_user_attributes" VALUES(12,2,'known','{"trainable_params": 520.0}');
INSERT INTO "trial_user_attributes" VALUES(13,2,'reports','[{"step": 10, "fidelity": 1.0, "metrics": {"accuracy": 0.8839739701527565, "validation_loss": 0.11602602984724353}, "member": 1}, {"step": 30, "fidelity": 3.0, "metrics": {"accuracy": 0.884584512135105, "validation_loss": 0.11541548786489497}, "member": 1}]');
INSERT INTO "trial_user_attributes" VALUES(14,2,'folder','"out/trials/79cf4d19/1"');
INSERT INTO "trial_user_attributes" VALUES(15,2,'seconds','0.08021225799893728');
INSERT INTO "trial_user_attributes" VALUES(16,3,'owner','{"host": "elsewhere", "boot": "", "namespace": "pid:[4026531836]", "pid": 22416, "started": 3319871.0, "id": "fcda7591d7664ca08c06d42260b99c91", "kills": 12}');
INSERT INTO "trial_user_attributes" VALUES(17,3,'config','{"place": [{"method": "adapter", "activation": "relu", "at": "ffn", "bias": true, "form": "sequential", "scale": 1.0, "size": 16, "where": [0, 1]}, {"method": "lora", "lora_alpha": 8.0, "lora_dropout": 0.0, "r": 4, "targets": ["q", "v"], "where": [0, 1, 2, 3]}], "train": {"learning_rate": 0.0041526582719759045}}');
INSERT INTO "trial_user_attributes" VALUES(18,3,'key','"1bc1d698de8f5c36"');
INSERT INTO "trial_user_attributes" VALUES(19,3,'known','{"trainable_params": 480.0}');
INSERT INTO "trial_user_attributes" VALUES(20,3,'reports','[{"step": 10, "fidelity": 1.0, "metrics": {"accuracy": 0.6169078958346212, "validation_loss": 0.38309210416537876}, "member": 2}]');
INSERT INTO "trial_user_attributes" VALUES(21,3,'stopped','"3 of 3 at 1 by validation_loss; the first 1 go on"');
INSERT INTO "trial_user_attributes" VALUES(22,3,'seconds','0.025511426996672526');
INSERT INTO "trial_user_attributes" VALUES(23,4,'owner','{"host": "elsewhere", "boot": "", "namespace": "pid:[4026531836]", "pid": 22416, "started": 3319871.0, "id": "fcda7591d7664ca08c06d42260b99c91", "kills": 12}');
INSERT INTO "trial_user_attributes" VALUES(24,4,'config','{"place": [{"method": "adapter", "activation": "relu", "at": "ffn", "bias": true, "form": "sequential", "scale": 1.0, "size": 4, "where": [0, 1, 2, 3]}, {"method": "lora", "lora_alpha": 4.0, "lora_dropout": 0.0, "r": 2, "targets": ["q", "v"], "where": [0, 1]}, {"method": "lora", "lora_alpha": 8.0, "lora_dropout": 0.0, "r": 4, "targets": ["q", "v"], "where": [2, 3]}], "train": {"learning_rate": 0.0037032875724809376}}');
INSERT INTO "trial_user_attributes" VALUES(25,4,'key','"15c29cbf6b349dd1"');
INSERT INTO "trial_user_attributes" VALUES(26,4,'known','{"trainable_params": 280.0}');
INSERT INTO "trial_user_attributes" VALUES(27,4,'reports','[{"step": 10, "fidelity": 1.0, "metrics": {"accuracy": 0.6753991461198097, "validation_loss": 0.32460085388019033}, "member": 3}]');
INSERT INTO "trial_user_attributes" VALUES(28,4,'stopped','"3 of 4 at 1 by validation_loss; the first 1 go on"');
INSERT INTO "trial_user_attributes" VALUES(29,4,'seconds','0.02561409900226863');
INSERT INTO "trial_user_attributes" VALUES(30,5,'owner','{"host": "elsewhere", "boot": "", "namespace": "pid:[4026531836]", "pid": 22416, "started": 3319871.0, "id": "fcda7591d7664ca08c06d42260b99c91", "kills": 12}');
INSERT INTO "trial_user_attributes" VALUES(31,5,'config','{"place": [{"method": "adapter", "activation": "relu", "at": "ffn", "bias": true, "form": "sequential", "scale": 1.0, "size": 4, "where": [0, 1, 2, 3]}, {"method": "lora", "lora_alpha": 16.0, "lora_dropout": 0.0, "r": 8, "targets": ["q", "v"], "where": [0, 1]}, {"method": "lora", "lora_alpha": 4.0, "lora_dropout": 0.0, "r": 2, "targets": ["q", "v"], "where": [2, 3]}], "train": {"learning_rate": 0.001411403305240359}}');
INSERT INTO "trial_user_attributes" VALUES(32,5,'key','"a78d23b00c5349a2"');
INSERT INTO "trial_user_attributes" VALUES(33,5,'known','{"trainable_params": 360.0}');
INSERT INTO "trial_user_attributes" VALUES(34,5,'reports','[{"step": 10, "fidelity": 1.0, "metrics": {"accuracy": 0.9765854826255506, "validation_loss": 0.02341451737444944}, "member": 4}, {"step": 30, "fidelity": 3.0, "metrics": {"accuracy": 0.9774666249324856, "validation_loss": 0.022533375067514405}, "member": 4}]');
INSERT INTO "trial_user_attributes" VALUES(35,5,'folder','"out/trials/79cf4d19/4"');
INSERT INTO "trial_user_attributes" VALUES(36,5,'seconds','0.060119312001916114');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,0.950212931632136,'FINITE');
INSERT INTO "trial_values" VALUES(2,1,1,0.0,'FINITE');
INSERT INTO "trial_values" VALUES(3,2,0,0.884584512135105,'FINITE');
INSERT INTO "trial_values" VALUES(4,2,1,520.0,'FINITE');
INSERT INTO "trial_values" VALUES(5,5,0,9.77466624932485594889e-01,'FINITE');
INSERT INTO "trial_values" VALUES(6,5,1,360.0,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-30 11:48:55.364712','2026-11-30 11:48:55.459175');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-30 11:48:55.480681','2026-11-30 11:48:55.675270');
INSERT INTO "trials" VALUES(3,2,1,'PRUNED','2026-11-30 11:48:55.713299','2026-11-30 11:48:55.852518');
INSERT INTO "trials" VALUES(4,3,1,'PRUNED','2026-11-30 11:48:55.896195','2026-11-30 11:48:56.012591');
INSERT INTO "trials" VALUES(5,4,1,'COMPLETE','2026-11-30 11:48:56.048162','2026-11-30 11:48:56.219408');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
